"""What could make gre-xdp fail, be slow or surprise here: judges facts, touches nothing.

Whatever ``apply`` would refuse is asked of ``preflight``, whose errors become findings; beside that
come what works badly, and what works other than people may expect.
"""

from gre_xdp.doctor.examination import examine, file_findings, findings
from gre_xdp.doctor.finding import Command, Finding, Severity

__all__ = ["Command", "Finding", "Severity", "examine", "file_findings", "findings"]
