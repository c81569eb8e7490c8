"""What only builds the book: statements and rules, executing notebooks, the Sphinx extension."""
