"""The same stream over Dask arrays and over the ranks of a run of torch.distributed."""

import dask.array as da
import numpy as np
import pytest
import torch
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


def test_sequences_on_a_cluster_are_kept_whole():
    log_q, log_p = LOG_Q.reshape(4000, 5), LOG_P.reshape(4000, 5)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        found = kl.stream_dask(da.from_array(log_q, (700, 2)), da.from_array(log_p, 3000))
    wanted = kl.estimate_kl(log_q, log_p)
    assert (found.groups, found.n) == (4000, 20_000)
    assert found.estimate().value == pytest.approx(wanted.value, rel=1e-12)
    assert found.estimate().standard_error == pytest.approx(wanted.standard_error, rel=1e-10)


def rank(number, size, folder):
    """What one rank does: its own share of the samples, one all-gather, the estimate of all."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=size
    )
    stream = kl.KLStream()
    stream.update(LOG_Q[number::size], LOG_P[number::size])
    state = torch.from_numpy(stream.state)
    parts = [torch.empty_like(state) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, state)
    total = kl.KLStream()
    for part in parts:
        total.merge(kl.KLStream.of_state(part))
    np.save(f"{folder}/{number}.npy", total.state)
    torch.distributed.destroy_process_group()


def test_ranks_merge_by_one_all_gather(tmp_path):
    torch.multiprocessing.spawn(rank, args=(2, str(tmp_path)), nprocs=2)
    states = [np.load(tmp_path / f"{number}.npy") for number in range(2)]
    assert np.array_equal(*states)
    check(kl.KLStream.of_state(states[0]))


def test_users_of_torch_are_told_of_torch():
    with pytest.raises(TypeError, match=r"log_q has dtype torch.int64; .*\.double\(\)"):
        kl.estimate_kl(torch.tensor([-1, -2]), torch.tensor([-1.0, -2.0]))


def test_half_precision_tells_what_its_rounding_adds():
    x = np.random.Generator(np.random.PCG64(62)).standard_normal(2000)
    log_q = torch.tensor(-5 - x**2 / 2)
    log_p = log_q + 0.01 * torch.tensor(x) - 0.00005
    options = {"mask": torch.ones(2000, dtype=torch.int64), "groups": torch.arange(2000)}
    assert kl.estimate_kl(log_q, log_p, **options).warnings == ()
    with pytest.warns(kl.KLWarning, match="Rounding of the log-probabilities"):
        kl.estimate_kl(log_q.bfloat16(), log_p.bfloat16(), **options)
