"""All sequences of a small policy with an end token, for exact means in the tests of the losses."""

import itertools

import numpy as np

TOKENS, LENGTH, END = 3, 3, 2


def sequences():
    """Return every sequence as (tokens, mask), padded behind the end token or LENGTH."""
    kept = []
    for tokens in itertools.product(range(TOKENS), repeat=LENGTH):
        size = tokens.index(END) + 1 if END in tokens else LENGTH
        if tokens[size:] == (0,) * (LENGTH - size):
            kept.append((tokens, [t < size for t in range(LENGTH)]))
    tokens, mask = (np.array(column) for column in zip(*kept, strict=True))
    return tokens, mask


def logits(seed):
    """Return logits of shape (LENGTH, TOKENS, TOKENS): position, last token, token."""
    return np.random.default_rng(seed).normal(size=(LENGTH, TOKENS, TOKENS))


def log_softmax(z):
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


def gather(log_table, tokens):
    """Return the log-probability of each token; works for any array that NumPy can index."""
    before = np.concatenate([np.zeros((len(tokens), 1), dtype=int), tokens[:, :-1]], axis=1)
    return log_table[np.arange(LENGTH), before, tokens]
