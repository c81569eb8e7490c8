"""For the chapters: exact twins of the estimators, the checks of the statements, the figures."""
