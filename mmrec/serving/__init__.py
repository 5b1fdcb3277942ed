"""An export over HTTP: the application, its limits, its metrics, and the change to a new export. Extra ``serve``."""
