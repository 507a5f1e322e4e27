"""One blob from a registry into the layout: ranged, resumed, verified, shared between processes."""
