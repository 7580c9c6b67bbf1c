"""A lab of network namespaces: site A ═ gateway A ═ underlay ═ gateway B ═ site B."""
