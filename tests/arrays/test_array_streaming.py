"""The same stream over Dask arrays, on threads and on a cluster of processes."""

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

import klapprox as kl

X = np.random.Generator(np.random.PCG64(61)).standard_normal(20_000)
LOG_Q, LOG_P = -(X**2) / 2, -((X - 0.8) ** 2) / 2


def check(stream):
    wanted = kl.stream_kl([(LOG_Q, LOG_P)])
    assert stream.n == wanted.n
    for name in ("k1", "k2", "k3", "k_lambda"):
        found, exact = stream.estimate(name), wanted.estimate(name)
        assert found.value == pytest.approx(exact.value, rel=1e-12)
        assert found.standard_error == pytest.approx(exact.standard_error, rel=1e-10)


@pytest.mark.parametrize("size", [700, 20_000])
def test_threads(size):
    check(kl.stream_dask(da.from_array(LOG_Q, size), da.from_array(LOG_P, 3000)))


def test_a_local_cluster():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        check(kl.stream_dask(da.from_array(LOG_Q, 2500), da.from_array(LOG_P, 2500)))
