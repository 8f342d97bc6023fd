"""The second shelf: from the tables of a study to answers. It imports the first, never the
reverse."""
