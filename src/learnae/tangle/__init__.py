"""PURE: what peers and sensors say, as signed vertices of a directed acyclic graph."""
