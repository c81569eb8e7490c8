"""For who knows both laws: exact divergences, moments and gradients, with no sampling."""
