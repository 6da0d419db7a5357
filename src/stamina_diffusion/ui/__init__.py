"""The web studio: a page on this machine to teach, draw, undo and export. Needs the extra `ui`."""
