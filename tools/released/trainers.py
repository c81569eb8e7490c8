"""One entry a library and option: what to take out of its release, and how to call it.

An entry's ``build`` returns ``loss(beta, log_pi, log_ref, log_old, mask, engine)`` for arrays of
shape (B, T): the trainer's own loss or, with the sign turned, its own rewards, at the coefficient
``beta`` and with advantages 0. What the KL term is, is then the difference between β = 1 and β = 0.
``engine`` is the ratio of the trainer's and the engine's probabilities, or None without correction.

Stand-ins are strict (see `stand_ins`): an option that was renamed or is ignored raises. Of each
library only names, options and the order of arguments stand here; its code stays in its wheel.
"""

import asyncio
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .extract import Source, yaml_setting
from .stand_ins import Inputs, Sink, StandIn, call
from .wheels import Release

TORCH = {"torch": torch, "F": torch.nn.functional, "math": math, "Optional": None}
Loss = Callable[..., Any]


@dataclass
class Taker:
    """Takes functions and defaults out of one release, and remembers from where."""

    release: Release

    def __post_init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self.read: list[dict[str, Any]] = []

    def source(self, name: str) -> Source:
        """Return one source file of the release."""
        if name not in self.sources:
            self.sources[name] = Source(name, self.release.text(name))
        return self.sources[name]

    def function(self, file: str, name: str, /, **names: Any) -> Callable[..., Any]:
        """Return a function of a file, to which these names are imported."""
        without = names.pop("without", ())
        return self.source(file).function(name, {**TORCH, **names}, without=without)

    def default(self, file: str, name: str) -> Any:
        """Return a default as it stands in the source, YAML included."""
        if file.endswith(".yaml"):
            self.read.append({"file": file, "setting": name})
            return yaml_setting(file, self.release.text(file), name)
        return self.source(file).setting(name)

    def where(self) -> list[dict[str, Any]]:
        """Return what was taken and from where: file, function or setting, line."""
        return [entry for source in self.sources.values() for entry in source.used] + self.read


@dataclass(frozen=True)
class Default:
    """What a user gets who sets nothing."""

    coefficient: float | None  # None: the caller gives it
    on: bool  # whether the term is part of what is trained
    option: bool  # whether this row's option is the one that is chosen by default


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    key: str
    library: str
    package: str
    option: str
    place: str  # loss, reward of a token or of a response, advantage, diagnostic
    build: Callable[[Taker], Loss]
    default: Callable[[Taker], Default]
    so_what: str
    how: str = "method"  # method or function, called whole; statements, where neither can be
    engine: bool = False  # whether the trainer has a correction for the engine
    framework: str = "torch"
    reference: bool = True  # False: measured without a reference model
    alone: bool = False  # the function computes β times the term and nothing else

    @property
    def detached(self) -> bool:
        """Whether the term is a number when the gradient is taken."""
        return self.place != "loss"


def same(value: Any, *_: Any, **__: Any) -> Any:
    """Gather or reduce over one process."""
    return value


def accelerator(**more: Any) -> StandIn:
    """Return what TRL and ms-swift call for several processes, for one."""
    return StandIn("accelerator", **more)


# --- TRL --------------------------------------------------------------------------------------

GRPO = "trl/trainer/grpo_trainer.py"


def trl_grpo(
    *, corrected: bool = True, level: str = "token", early: bool = False
) -> Callable[[Taker], Loss]:
    """Build the loss of TRL's GRPOTrainer; ``early``: of release 1.0, which reads less."""

    def build(take: Taker) -> Loss:
        compute = take.function(
            GRPO, "GRPOTrainer._compute_loss", nanmin=torch.min, nanmax=torch.max
        )

        def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
            mask = mask.long()
            trainer = StandIn(
                "self",
                args=StandIn("args", delta=None),
                model=StandIn("model", training=True),
                accelerator=accelerator(num_processes=1, gather=same),
                beta=beta,
                importance_sampling_level=level,
                loss_type="dapo",
                epsilon_low=0.2,
                epsilon_high=0.2,
                top_entropy_quantile=1.0,
                off_policy_mask_threshold=None,
                use_vllm=engine is not None,
                _metrics={"train": Sink()},
                _get_per_token_logps_and_entropies=lambda *_, **__: (
                    log_pi,
                    torch.zeros_like(log_pi),
                    None,
                )[: 2 if early else 3],
            )
            if not early:
                trainer.give(
                    aux_loss_enabled=False,
                    _entropy_bonus_enabled=False,
                    current_gradient_accumulation_steps=1,
                )
                trainer.args.give(steps_per_generation=1)
                trainer.accelerator.give(reduce=same)
            if beta:
                trainer.args.give(use_bias_correction_kl=corrected)
            inputs = Inputs(
                "inputs",
                prompt_ids=mask[:, :0],
                prompt_mask=mask[:, :0],
                completion_ids=mask,
                completion_mask=mask,
                advantages=torch.zeros(len(mask), dtype=log_pi.dtype),
                ref_per_token_logps=log_ref,
                old_per_token_logps=log_old,
                num_items_in_batch=mask.sum(),
            )
            if engine is not None:
                trainer.give(vllm_importance_sampling_correction=True)
                inputs.give(importance_sampling_ratio=engine)
            return call(compute, trainer, None, inputs, watch=bool(beta))

        return loss

    return build


def trl_grpo_default(corrected: bool, level: str = "token") -> Callable[[Taker], Default]:
    """Read what a GRPOConfig without arguments says."""

    def read(take: Taker) -> Default:
        config = "trl/trainer/grpo_config.py"
        beta = take.default(config, "GRPOConfig.beta")
        chosen = (
            take.default(config, "GRPOConfig.use_bias_correction_kl"),
            take.default(config, "GRPOConfig.importance_sampling_level"),
        )
        # The loss is called with this normalisation.
        assert take.default(config, "GRPOConfig.loss_type") == "dapo"
        return Default(beta, beta != 0, chosen == (corrected, level))

    return read


def trl_rloo(take: Taker) -> Loss:
    """Build the reward of TRL's RLOOTrainer: four statements of a method that also generates."""
    run = take.source("trl/trainer/rloo_trainer.py").cut(
        "RLOOTrainer._generate_and_score_completions",
        {"per_token_kl", "kl", "rewards"},
        count=4,
        containing="kl",
    )

    def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
        local = {
            "self": StandIn("self", beta=beta),
            "rewards": torch.zeros(len(mask), dtype=log_pi.dtype),
            "old_per_token_logps": log_pi,
            "ref_per_token_logps": log_ref,
            "completion_mask": mask,
            "gather": same,
        }
        return -call(run, local)["rewards"]

    return loss


def trl_rloo_default(take: Taker) -> Default:
    """Read what an RLOOConfig without arguments says."""
    beta = take.default("trl/trainer/rloo_config.py", "RLOOConfig.beta")
    return Default(beta, beta != 0, True)


# --- verl -------------------------------------------------------------------------------------

ALGOS = "verl/trainer/ppo/core_algos.py"


class VerlData(Inputs):
    """What verl reads of a TensorDict."""

    def select(self, *keys: str) -> "VerlData":
        """Return these entries."""
        return VerlData(self.name, **{key: self[key] for key in keys})

    def to_padded_tensor(self) -> "VerlData":
        """Return the entries, which are padded already."""
        return self


class VerlConfig(StandIn):
    """A configuration of verl, which also has ``get``."""

    def get(self, name: str, default: Any) -> Any:
        """Return an option, which the entry gives."""
        return getattr(self, name)


class VerlMetric:
    """Takes verl's metrics."""

    def __init__(self, value: Any, aggregation: Any) -> None: ...

    @staticmethod
    def from_dict(metrics: dict[str, Any], aggregation: Any) -> dict[str, Any]:
        """Return no metrics."""
        return {}


def _verl_sums(take: Taker) -> StandIn:
    names = ("masked_sum", "masked_mean")
    file = "verl/utils/torch_functional.py"
    return StandIn("verl_F", **{name: take.function(file, name) for name in names})


def verl_loss(kind: str) -> Callable[[Taker], Loss]:
    """Build the loss of verl's actor."""

    def build(take: Taker) -> Loss:
        sums = _verl_sums(take)
        aggregate = take.function(ALGOS, "agg_loss", verl_F=sums)
        policy = take.function(
            ALGOS,
            "compute_policy_loss_vanilla",
            without={"register_policy_loss"},
            verl_F=sums,
            AlgoConfig=type("AlgoConfig", (), {}),
        )
        whole = take.function(
            "verl/workers/utils/losses.py",
            "ppo_loss",
            no_padding_2_padding=same,
            AggregationType=StandIn("AggregationType", SUM="sum", MEAN="mean"),
            Metric=VerlMetric,
            get_policy_loss_fn={"vanilla": policy}.__getitem__,
            kl_penalty=take.function(ALGOS, "kl_penalty", without={"deprecated"}),
            agg_loss=aggregate,
        )

        def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
            config = VerlConfig(
                "config",
                global_batch_info={},
                loss_scale_factor=None,
                loss_agg_mode="token-mean",
                policy_loss={"loss_mode": "vanilla"},
                use_kl_loss=True,
                kl_loss_type=kind,
                kl_loss_coef=beta,
                clip_ratio=0.2,
                clip_ratio_low=None,
                clip_ratio_high=None,
                clip_ratio_c=3.0,
            )
            data = VerlData(
                "data",
                dp_size=1,
                batch_num_tokens=None,
                global_batch_size=None,
                response_mask=mask,
                old_log_probs=log_old,
                advantages=torch.zeros_like(log_pi),
                ref_log_prob=log_ref,
            )
            if engine is not None:
                data.give(rollout_is_weights=engine)
            return call(whole, config, {"log_probs": log_pi}, data)[0]

        return loss

    return build


def verl_loss_default(kind: str) -> Callable[[Taker], Default]:
    """Read what verl's ActorConfig says."""

    def read(take: Taker) -> Default:
        config = "verl/workers/config/actor.py"
        assert take.default(config, "ActorConfig.loss_agg_mode") == "token-mean"
        chosen = take.default(config, "ActorConfig.kl_loss_type")
        coefficient = take.default(config, "ActorConfig.kl_loss_coef")
        return Default(coefficient, take.default(config, "ActorConfig.use_kl_loss"), chosen == kind)

    return read


def verl_reward(take: Taker) -> Loss:
    """Build the rewards of verl."""
    penalty = take.function(ALGOS, "kl_penalty", without={"deprecated"})
    apply = take.function(
        "verl/trainer/ppo/ray_trainer.py",
        "apply_kl_penalty",
        core_algos=StandIn("core_algos", kl_penalty=penalty, AdaptiveKLController=None),
        DataProto=None,
        masked_mean=take.function("verl/utils/torch_functional.py", "masked_mean"),
    )

    def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
        batch = Inputs(
            "batch",
            response_mask=mask,
            token_level_scores=torch.zeros_like(log_pi),
            old_log_probs=log_pi,
            ref_log_prob=log_ref,
        )
        batch.batch_size = [len(mask)]
        control = StandIn("kl_ctrl", value=beta, update=lambda **_: None)
        data = StandIn("data", batch=batch)
        call(apply, data, control, kl_penalty="kl")
        return -batch["token_level_rewards"]

    return loss


def verl_reward_default(take: Taker) -> Default:
    """Read what verl's ppo_trainer.yaml says."""
    file = "verl/trainer/config/ppo_trainer.yaml"
    on = take.default(file, "algorithm.use_kl_in_reward")
    kind = take.default(file, "algorithm.kl_penalty")
    return Default(take.default(file, "algorithm.kl_ctrl.kl_coef"), on, kind == "kl")


# --- OpenRLHF ---------------------------------------------------------------------------------

RLHF = "openrlhf/models/utils.py"


def openrlhf_loss(kind: str, *, unbiased: bool | None = False) -> Callable[[Taker], Loss]:
    """Build the KL loss of OpenRLHF's actor: statements of a method that also runs the model.

    Releases before 0.11.1 have no option ``unbiased_gradient``: None.
    """

    def build(take: Taker) -> Loss:
        estimate = take.function(RLHF, "compute_approx_kl")
        mean = take.function(RLHF, "masked_mean")
        aggregate = take.function("openrlhf/models/loss.py", "aggregate_loss", masked_mean=mean)
        run = take.source("openrlhf/trainer/ray/ppo_actor.py").cut(
            "ActorPPOTrainer.training_step",
            {"kl", "kl_loss", "loss"},
            count=5,
            containing="kl",
        )

        def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
            options = StandIn("kl", use_loss=True, init_coef=1.0, estimator=kind)
            if unbiased is not None:
                options.give(unbiased_gradient=unbiased)
            local = {
                "self": StandIn("self", args=StandIn("args", algo=StandIn("algo", kl=options))),
                "action_log_probs": log_pi,
                "base_action_log_probs": log_ref,
                "old_action_log_probs": log_old,
                "experience": StandIn("experience", action_mask=mask),
                "loss_batch_info": {},
                "actor_loss": 0.0,
                "kl_ctl": beta,
                "compute_approx_kl": estimate,
                "aggregate_loss": aggregate,
                "torch": torch,
            }
            return call(run, local)["loss"]

        return loss

    return build


def openrlhf_reward(take: Taker) -> Loss:
    """Build the rewards of OpenRLHF."""
    estimate = take.function(RLHF, "compute_approx_kl")
    reward = take.function(RLHF, "compute_reward")

    def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
        kl = estimate(log_pi, log_ref, kl_estimator="k1")
        scores = torch.zeros(len(mask), dtype=kl.dtype)
        # What stands in the padding is masked when advantages are made of the rewards.
        return torch.where(mask, -reward(scores, beta, kl, action_mask=mask), 0.0)

    return loss


def openrlhf_default(
    kind: str, *, in_loss: bool, unbiased: bool | None = False
) -> Callable[[Taker], Default]:
    """Read the command line of OpenRLHF."""

    def read(take: Taker) -> Default:
        file = "openrlhf/cli/train_ppo_ray.py"
        coefficient = take.default(file, "--algo.kl.init_coef")
        # An option of the kind store_true.
        loss_on = take.default(file, "--algo.kl.use_loss")
        chosen = kind == take.default(file, "--algo.kl.estimator")
        if unbiased is not None:
            chosen &= unbiased == take.default(file, "--algo.kl.unbiased_gradient")
        return Default(coefficient, loss_on == in_loss and coefficient > 0, chosen)

    return read


# --- ms-swift ---------------------------------------------------------------------------------

SWIFT = "swift/rlhf_trainers/grpo_trainer.py"


def swift_grpo(take: Taker) -> Loss:
    """Build the loss of ms-swift's GRPOTrainer."""
    compute = take.function(
        SWIFT,
        "GRPOTrainer._compute_loss_and_metrics",
        gather_object=same,
        gather=same,
        nanmin=torch.min,
        nanmax=torch.max,
        logger=None,
        WINDOW_NORMALIZED_LOSS_TYPES=["dapo"],
    )

    def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
        corrected = engine is not None
        trainer = StandIn(
            "self",
            args=StandIn("args", delta=None),
            model=StandIn("model", training=True),
            accelerator=accelerator(gather_for_metrics=same),
            beta=beta,
            kl_in_reward=False,
            compute_entropy=False,
            overlong_filter=False,
            importance_sampling_level="token",
            rollout_importance_sampling_mode="token_truncate" if corrected else None,
            disable_rollout_importance_sampling=False,
            _has_teacher=False,
            loss_type="grpo",
            epsilon_low=0.2,
            epsilon_high=0.2,
            off_policy_sequence_mask_delta=None,
            sdar_loss_coef=0,
            chord_sft_iterator=None,
            _get_per_token_logps_and_entropies=lambda *_, **__: (log_pi, None),
        )
        batch = StandIn(
            "grpo_batch",
            completion_mask=mask,
            truncated_mask=[],
            ref_per_token_logps=log_ref,
            old_per_token_logps=log_old,
            advantages=torch.zeros_like(log_pi),
            rollout_per_token_logps=log_pi.detach() if corrected else None,
        )
        if corrected:
            trainer.give(
                _compute_rollout_offpolicy_metrics=lambda *_: {},
                _get_rollout_is_correction=lambda *_: (None, engine),
            )
        else:
            trainer.give(log_rollout_offpolicy_metrics=False)
        return call(compute, trainer, None, {}, batch, watch=bool(beta))[0]

    return loss


def swift_default(take: Taker) -> Default:
    """Read ms-swift's arguments: the coefficient is filled in where none was given."""
    file = "swift/arguments/rlhf_args.py"
    beta = take.source(file).assigned("RLHFArguments._init_grpo", "self.beta")
    return Default(beta, beta != 0, True)


# --- torchtune --------------------------------------------------------------------------------


def torchtune_reward(take: Taker) -> Loss:
    """Build the rewards of torchtune's PPO."""
    rewards = take.function("torchtune/rlhf/rewards.py", "get_rewards_ppo")

    def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
        last = mask.sum(1) - 1
        scores = torch.zeros(len(mask), dtype=log_pi.dtype)
        total, _, _ = rewards(scores, log_pi, log_ref, beta, valid_score_idxs=last)
        # What stands in the padding is masked when advantages are made of the rewards.
        return torch.where(mask, -total, 0.0)

    return loss


def torchtune_default(take: Taker) -> Default:
    """Read the recipe for PPO that comes with torchtune."""
    file = "recipes/configs/mistral/7B_full_ppo_low_memory.yaml"
    return Default(take.default(file, "kl_coeff"), True, True)


# --- Stable-Baselines3 ------------------------------------------------------------------------


def sb3_monitor(take: Taker) -> Loss:
    """Build the early stopping of Stable-Baselines3's PPO: statements of its training loop.

    Its pair is the policy before (which sampled) and after: the former stands at ``log_ref``.
    """
    run = take.source("stable_baselines3/ppo/ppo.py").cut(
        "PPO.train", {"log_ratio", "approx_kl_div"}, count=2
    )

    def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
        # Its arrays are flat and have no padding.
        local = {
            "th": torch,
            "log_prob": log_pi[mask],
            "rollout_data": StandIn("rollout_data", old_log_prob=log_ref[mask]),
        }
        return beta * torch.as_tensor(call(run, local)["approx_kl_div"])

    return loss


def sb3_default(take: Taker) -> Default:
    """Read whether PPO stops early when nothing is said."""
    limit = take.default("stable_baselines3/ppo/ppo.py", "PPO.__init__(target_kl)")
    return Default(None, limit is not None, True)


# --- torchrl ----------------------------------------------------------------------------------


def torchrl_loss(take: Taker) -> Loss:
    """Build the KL loss of torchrl's GRPOLoss."""
    term = take.function(
        "torchrl/objectives/llm/grpo.py", "GRPOLoss._kl_to_ref", expand_as_right=lambda m, _: m
    )

    def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
        module = StandIn("self", kl_to_ref_coeff=beta)
        data = Inputs("tensordict", _cur_log_prob=log_pi)
        return call(term, module, data, ref_log_prob=log_ref, mask=mask)[0]

    return loss


def torchrl_default(take: Taker) -> Default:
    """Read whether GRPOLoss has a KL term when nothing is said."""
    file = "torchrl/objectives/llm/grpo.py"
    coefficient = take.default(file, "GRPOLoss.__init__(kl_to_ref_coeff)")
    return Default(coefficient, coefficient is not None, True)


# --- AReaL ------------------------------------------------------------------------------------


def areal_reward(kind: str, *, reference: bool = True) -> Callable[[Taker], Loss]:
    """Build the rewards of AReaL's PPO actor."""

    def build(take: Taker) -> Loss:
        estimate = take.function("areal/utils/data.py", "KLEstimator._compute_approx_kl")
        advantages = take.function("areal/trainer/ppo/actor.py", "PPOActor._compute_advantages")

        def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
            number = mask.to(log_pi.dtype)
            first = torch.zeros(len(mask), 1, dtype=log_pi.dtype)
            # Entry t of a response belongs to token t + 1; one place of prompt comes first.
            data = Inputs(
                "data",
                input_ids=torch.zeros(len(mask), mask.shape[1] + 1, dtype=torch.long),
                rewards=first[:, 0],
                loss_mask=torch.cat([first, number], 1),
                attention_mask=torch.cat([first + 1, number], 1),
                logprobs=torch.cat([first, log_pi], 1),
            )
            if reference:
                data.give(ref_logp=torch.cat([log_ref, first], 1))
            actor = StandIn(
                "self",
                config=StandIn(
                    "config",
                    overlong_reward_penalty=False,
                    use_decoupled_loss=False,
                    recompute_logprob=False,
                ),
                reward_bias=0.0,
                reward_scaling=1.0,
                reward_clip=math.inf,
                reward_norm=None,
                kl_ctl=beta,
                kl_estimator=lambda p, q: estimate(p, q, kind, True),
                mask_no_eos_with_zero=False,
                discount=1.0,
                gae_lambda=1.0,
                adv_norm=None,
            )
            return -call(advantages, actor, data)["kl_rewards"][:, :-1]

        return loss

    return build


def areal_default(kind: str, *, reference: bool = True) -> Callable[[Taker], Default]:
    """Read AReaL's configuration: coefficient, estimator, and whether there is a reference."""

    def read(take: Taker) -> Default:
        file = "areal/api/cli_args.py"
        coefficient = take.default(file, "PPOActorConfig.kl_ctl")
        chosen = take.default(file, "PPOActorConfig.kl_estimator") == kind
        given = take.default(file, "PPOConfig.ref") is not None
        return Default(coefficient, coefficient > 0, chosen and given == reference)

    return read


# --- SkyRL ------------------------------------------------------------------------------------


def skyrl_loss(
    worker: str, method: str, utils: str, mean: str, *, nested: bool = False
) -> Callable[[Taker], Loss]:
    """Build the KL loss of SkyRL's policy worker: statements of a method that runs the model."""

    def build(take: Taker) -> Loss:
        estimate = take.function(utils, "compute_approx_kl")
        masked_mean = take.function(mean, "masked_mean")
        run = take.source(worker).cut(method, {"kl_loss", "kl_loss_term"}, count=4)

        def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
            options = StandIn(
                "algorithm", use_kl_loss=True, kl_estimator_type="k3", kl_loss_coef=beta
            )
            config = StandIn("algorithm's owner", algorithm=options)
            if nested:
                config = StandIn("cfg", trainer=config)
            local = {
                "self": StandIn("self", cfg=config),
                "resolved_loss_name": "regular",
                "action_log_probs": log_pi,
                "base_action_log_probs": log_ref,
                "loss_mask": mask.to(log_pi.dtype),
                "compute_approx_kl": estimate,
                "masked_mean": masked_mean,
                "torch": torch,
            }
            return call(run, local)["kl_loss_term"]

        return loss

    return build


def skyrl_default(take: Taker) -> Default:
    """Read SkyRL's AlgorithmConfig."""
    file = "skyrl/train/config/config.py"
    on = take.default(file, "AlgorithmConfig.use_kl_loss")
    chosen = take.default(file, "AlgorithmConfig.kl_estimator_type") == "k3"
    return Default(take.default(file, "AlgorithmConfig.kl_loss_coef"), on, chosen)


def skyrl_train_default(take: Taker) -> Default:
    """Read the configuration file of skyrl-train."""
    file, at = "skyrl_train/config/ppo_base_config.yaml", "trainer.algorithm."
    on = take.default(file, at + "use_kl_loss")
    chosen = take.default(file, at + "kl_estimator_type") == "k3"
    return Default(take.default(file, at + "kl_loss_coef"), on, chosen)


# --- google-tunix -----------------------------------------------------------------------------

TUNIX = "tunix/rl/common.py"


def _jax_names() -> dict[str, Any]:
    import jax
    import numpy as np

    return {"jax": jax, "jnp": jax.numpy, "np": np, "functools": functools}


def tunix_grpo(mode: str) -> Callable[[Taker], Loss]:
    """Build the loss of tunix's GRPO, which is written in JAX."""

    def build(take: Taker) -> Loss:
        names = _jax_names()
        jnp = names["jnp"]
        policy: list[Any] = []
        common = StandIn(
            "common",
            compute_kl_divergence=take.function(TUNIX, "compute_kl_divergence", **names),
            aggregate_loss=take.function(TUNIX, "aggregate_loss", **names),
            compute_per_token_logps=lambda *_, **__: (
                policy[-1],
                jnp.zeros((*policy[-1].shape, 2)),
            ),
        )
        compute = take.function(
            "tunix/rl/algo_core.py",
            "grpo_loss_fn",
            # Compiling a helper and registering the loss do not change what they compute.
            without={"function_registry.register_policy_loss_fn", "functools.partial"},
            nnx=StandIn("nnx", split=lambda model: (None, None)),
            common=common,
            **names,
        )

        def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
            policy.append(log_pi)
            config = StandIn(
                "algo_config",
                beta=beta,
                epsilon=0.2,
                loss_algo="grpo",
                loss_agg_mode="sequence-mean-token-mean",
                temperature=1.0,
                kl_loss_mode=mode,
                kl_clamp_value=None,
            )
            example = StandIn(
                "train_example",
                prompt_ids=None,
                completion_ids=mask,
                completion_mask=mask,
                advantages=jnp.zeros(len(mask)),
                old_per_token_logps=log_old,
                ref_per_token_logps=log_ref,
            )
            if engine is not None:
                example.give(sampler_is_weights=engine)
            return call(compute, None, example, config, 0, 0)[0]

        return loss

    return build


def tunix_grpo_default(mode: str) -> Callable[[Taker], Default]:
    """Read tunix's GRPOConfig."""

    def read(take: Taker) -> Default:
        file = "tunix/rl/grpo/grpo_learner.py"
        assert take.default(file, "GRPOConfig.loss_agg_mode") == "sequence-mean-token-mean"
        beta = take.default(file, "GRPOConfig.beta")
        return Default(beta, beta != 0, take.default(file, "GRPOConfig.kl_loss_mode") == mode)

    return read


def tunix_reward(take: Taker) -> Loss:
    """Build the penalty that tunix's PPO takes off the reward of each token."""
    penalty = take.function(TUNIX, "compute_kl_divergence", **_jax_names())

    def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
        return beta * mask * penalty(log_pi, log_ref, "low_var_kl")

    return loss


def tunix_reward_default(take: Taker) -> Default:
    """Read tunix's PPOConfig."""
    file = "tunix/rl/ppo/ppo_learner.py"
    beta = take.default(file, "PPOConfig.beta")
    return Default(beta, beta != 0, take.default(file, "PPOConfig.kl_method") == "low_var_kl")


# --- unsloth-zoo, Liger-Kernel: losses that trainers call --------------------------------------


def unsloth_loss(*, corrected: bool) -> Callable[[Taker], Loss]:
    """Build the loss of unsloth-zoo's GRPO."""

    def build(take: Taker) -> Loss:
        compute = take.function("unsloth_zoo/rl_replacements.py", "grpo_compute_loss")

        def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
            sampling = None if engine is None else log_old - torch.log(engine)
            advantages = torch.zeros(len(mask), dtype=log_pi.dtype)
            ids = torch.zeros_like(mask, dtype=torch.long)
            options = {"loss_type": "grpo", "use_bias_correction_kl": corrected}
            if engine is not None:
                options |= {"use_vllm": True, "vllm_importance_sampling_correction": True}
                options["vllm_importance_sampling_mode"] = "token_truncate"
            arrays = (log_ref, log_pi, log_old, sampling, ids, mask.to(log_pi.dtype))
            return compute(*arrays, beta, advantages, **options)[0]

        return loss

    return build


def liger_loss(*, corrected: bool) -> Callable[[Taker], Loss]:
    """Build the loss of Liger-Kernel's GRPO."""

    def build(take: Taker) -> Loss:
        normaliser = take.function(
            "liger_kernel/chunked_loss/fused_linear_ppo.py",
            "LigerFusedLinearPPOBase._compute_dapo_normalizer",
        )
        compute = take.function(
            "liger_kernel/chunked_loss/grpo_loss.py",
            "LigerFusedLinearGRPOFunction.ppo_loss_fn",
            LigerFusedLinearPPOBase=StandIn("base", _compute_dapo_normalizer=normaliser),
        )

        def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
            number = mask.to(log_pi.dtype)
            return compute(
                log_pi,
                number,
                torch.zeros(len(mask), dtype=log_pi.dtype),
                number,
                ref_per_token_logps=log_ref,
                old_per_token_logps=log_old,
                beta=beta,
                vllm_is_ratio=engine,
                use_bias_correction_kl=corrected,
            )[0]

        return loss

    return build


def unsloth_default(corrected: bool) -> Callable[[Taker], Default]:
    """Return that the trainer gives unsloth-zoo the coefficient and the option."""
    return lambda take: Default(None, False, not corrected)


def liger_default(corrected: bool) -> Callable[[Taker], Default]:
    """Read the parameters of Liger-Kernel's loss module."""

    def read(take: Taker) -> Default:
        file, at = "liger_kernel/chunked_loss/grpo_loss.py", "LigerFusedLinearGRPOLoss.__init__"
        beta = take.default(file, f"{at}(beta)")
        chosen = take.default(file, f"{at}(use_bias_correction_kl)") == corrected
        return Default(beta, beta != 0, chosen)

    return read


# --- tinker-cookbook --------------------------------------------------------------------------


def tinker_advantage(take: Taker) -> Loss:
    """Build what tinker-cookbook adds to the advantages, without its mean over the batch.

    A token at which policy and reference agree is added: what it gets is the mean alone.
    """
    scored: list[Any] = []

    async def score(*_: Any) -> Any:
        return scored[-1], None

    def data_of(tensor: Any) -> StandIn:
        return StandIn("tensor", to_torch=lambda: tensor)

    add = take.function(
        "tinker_cookbook/rl/metrics.py",
        "incorporate_kl_penalty",
        without={"trace.scope"},
        score_sequences=score,
        _full_sequence_inputs=same,
        safezip=zip,
        tinker=StandIn("tinker", TensorData=StandIn("TensorData", from_torch=data_of)),
    )

    def loss(beta, log_pi, log_ref, log_old, mask, engine=None):
        agree = torch.zeros(len(mask), 1, dtype=log_pi.dtype)
        batch = []
        scored.append([])
        for row in range(len(mask)):
            policy = torch.cat([log_pi[row], agree[row]])
            reference = torch.cat([log_ref[row], agree[row]])
            scored[-1].append([None, *reference.tolist()])
            inputs = Inputs(
                "inputs",
                logprobs=data_of(policy),
                mask=data_of(torch.cat([mask[row].to(policy.dtype), agree[row] + 1])),
                advantages=data_of(torch.zeros_like(policy)),
            )
            batch.append(StandIn("datum", loss_fn_inputs=inputs))
        asyncio.run(add(batch, None, beta, 0.0))
        changed = torch.stack([d.loss_fn_inputs["advantages"].to_torch() for d in batch])
        return torch.where(mask, changed[:, -1:] - changed[:, :-1], 0.0)

    return loss


def tinker_default(take: Taker) -> Default:
    """Read tinker-cookbook's configuration."""
    coefficient = take.default("tinker_cookbook/rl/train.py", "Config.kl_penalty_coef")
    return Default(coefficient, coefficient > 0, True)


# --- The table --------------------------------------------------------------------------------

ENTRIES = [
    Entry(
        "trl-grpo",
        "TRL",
        "trl",
        "GRPO",
        "loss",
        trl_grpo(),
        trl_grpo_default(True),
        "Set β and it is right token by token, with stale samples too. In float32 a token whose "
        "log-ratio passes 20 loses its gradient to rounding, and from 89 on the gradient is NaN.",
        engine=True,
    ),
    Entry(
        "trl-grpo-plain",
        "TRL",
        "trl",
        "GRPO, `use_bias_correction_kl=False`",
        "loss",
        trl_grpo(corrected=False),
        trl_grpo_default(False),
        "This was the default up to 1.9.2: it pulls along the other divergence, and a β tuned "
        "for it means something else now.",
        engine=True,
    ),
    Entry(
        "trl-grpo-sequence",
        "TRL",
        "trl",
        'GRPO, `importance_sampling_level="sequence"`',
        "loss",
        trl_grpo(level="sequence"),
        trl_grpo_default(True, "sequence"),
        "One weight for the whole response credits every token with the mean penalty of all: for "
        "responses longer than a token this is the gradient of no divergence known here.",
        engine=True,
    ),
    Entry(
        "trl-rloo",
        "TRL",
        "trl",
        "RLOO",
        "reward of a response",
        trl_rloo,
        trl_rloo_default,
        "On by default and right in the first inner step, divergence to go included; the penalty "
        "is frozen for the steps after.",
        how="statements",
        alone=True,
    ),
    Entry(
        "verl-loss",
        "verl",
        "verl",
        "`low_var_kl`",
        "loss",
        verl_loss("low_var_kl"),
        verl_loss_default("low_var_kl"),
        "Switch it on and it pulls along the other divergence; a token that is 13.6 times "
        "likelier under the reference than under the policy is not pulled at all.",
        engine=True,
    ),
    Entry(
        "verl-loss-straight",
        "verl",
        "verl",
        "`k3+`",
        "loss",
        verl_loss("k3+"),
        verl_loss_default("k3+"),
        "The option to choose on-policy: the right gradient per token, and the clamp touches "
        "only what is logged. There is no weight for stale samples.",
        engine=True,
    ),
    Entry(
        "verl-reward",
        "verl",
        "verl",
        "`use_kl_in_reward`",
        "reward of a token",
        verl_reward,
        verl_reward_default,
        "Right in the first inner step, divergence to go included, if advantages are sums of "
        "rewards to go; frozen afterwards.",
        alone=True,
    ),
    Entry(
        "openrlhf-reward",
        "OpenRLHF",
        "openrlhf",
        "reward",
        "reward of a token",
        openrlhf_reward,
        openrlhf_default("k1", in_loss=False),
        "On by default. The clamp caps what one token can cost at 10 nats.",
        how="function",
        alone=True,
    ),
    Entry(
        "openrlhf-k1",
        "OpenRLHF",
        "openrlhf",
        "`use_loss`, `k1`",
        "loss",
        openrlhf_loss("k1"),
        openrlhf_default("k1", in_loss=True),
        "`use_loss` alone leaves the estimator at k1, whose loss has no gradient on average: "
        "choose k2, or `unbiased_gradient`. The command line recommends as much.",
        how="statements",
        alone=True,
    ),
    Entry(
        "openrlhf-k2",
        "OpenRLHF",
        "openrlhf",
        "`use_loss`, `k2`",
        "loss",
        openrlhf_loss("k2"),
        openrlhf_default("k2", in_loss=True),
        "Right per token on-policy, and only for tokens within a factor of 87 of the reference.",
        how="statements",
        alone=True,
    ),
    Entry(
        "openrlhf-k3",
        "OpenRLHF",
        "openrlhf",
        "`use_loss`, `k3`",
        "loss",
        openrlhf_loss("k3"),
        openrlhf_default("k3", in_loss=True),
        "It pulls along the other divergence, and not at all beyond the clamp.",
        how="statements",
        alone=True,
    ),
    Entry(
        "openrlhf-k3-unbiased",
        "OpenRLHF",
        "openrlhf",
        "`use_loss`, `k3`, `unbiased_gradient`",
        "loss",
        openrlhf_loss("k3", unbiased=True),
        openrlhf_default("k3", in_loss=True, unbiased=True),
        "Right per token, with stale samples too while no weight passes 10; the clamp touches "
        "only what is logged.",
        how="statements",
        alone=True,
    ),
    Entry(
        "ms-swift-grpo",
        "ms-swift",
        "ms-swift",
        "GRPO",
        "loss",
        swift_grpo,
        swift_default,
        "On by default, along the other divergence, each response divided by its length. With a "
        "correction for the engine the penalty is multiplied by the engine's ratio too.",
        engine=True,
    ),
    Entry(
        "torchtune-ppo",
        "torchtune",
        "torchtune",
        "PPO",
        "reward of a token",
        torchtune_reward,
        torchtune_default,
        "Right in the first inner step, divergence to go included; frozen afterwards.",
        how="function",
        alone=True,
    ),
    Entry(
        "sb3-ppo",
        "Stable-Baselines3",
        "stable-baselines3",
        "PPO, `target_kl`",
        "diagnostic",
        sb3_monitor,
        sb3_default,
        "Not a penalty: k3 of the policies before and after, in the right direction for the "
        "samples. Nothing stops early unless `target_kl` is set.",
        how="statements",
        alone=True,
    ),
    Entry(
        "torchrl-grpo",
        "torchrl",
        "torchrl",
        "GRPO, `kl_to_ref_coeff`",
        "loss",
        torchrl_loss,
        torchrl_default,
        "The mean counts padding: in a batch that is half padding the penalty is half as strong, "
        "while the policy's term is a mean over kept tokens.",
        alone=True,
    ),
    Entry(
        "areal-k1",
        "AReaL",
        "areal",
        "PPO, `k1`",
        "reward of a token",
        areal_reward("k1"),
        areal_default("k1"),
        "With a reference it is the usual penalty: right in the first inner step, then frozen.",
        alone=True,
    ),
    Entry(
        "areal-k3",
        "AReaL",
        "areal",
        "PPO, `k3`",
        "reward of a token",
        areal_reward("k3"),
        areal_default("k3"),
        "k3 as a number in the reward has the mean gradient ∇KL(π‖π_ref) − ∇KL(π_ref‖π), which "
        "does not hold a policy near the reference: take k1.",
        alone=True,
    ),
    Entry(
        "areal-no-reference",
        "AReaL",
        "areal",
        "PPO, no reference",
        "reward of a token",
        areal_reward("k1", reference=False),
        areal_default("k1", reference=False),
        "Both defaults together (`kl_ctl=0.1`, no reference) reward every token with "
        "−`kl_ctl` log π: an entropy bonus. Without a reference, set `kl_ctl` to 0.",
        reference=False,
        alone=True,
    ),
    Entry(
        "skyrl",
        "SkyRL",
        "skyrl",
        "`use_kl_loss`",
        "loss",
        skyrl_loss(
            "skyrl/backends/skyrl_train/workers/worker.py",
            "PolicyWorkerBase._forward_backward_micro",
            "skyrl/backends/skyrl_train/utils/ppo_utils.py",
            "skyrl/backends/skyrl_train/utils/torch_utils.py",
        ),
        skyrl_default,
        "On by default, along the other divergence, each response divided by its length, and not "
        "at all beyond the clamp.",
        how="statements",
        alone=True,
    ),
    Entry(
        "skyrl-train",
        "SkyRL (skyrl-train)",
        "skyrl-train",
        "`use_kl_loss`",
        "loss",
        skyrl_loss(
            "skyrl_train/workers/worker.py",
            "PolicyWorkerBase.forward_backward",
            "skyrl_train/utils/ppo_utils.py",
            "skyrl_train/utils/ppo_utils.py",
            nested=True,
        ),
        skyrl_train_default,
        "On by default, and without effect: the estimate is made without a gradient. `skyrl`, "
        "its successor, has mended this.",
        how="statements",
        alone=True,
    ),
    Entry(
        "tunix-grpo",
        "tunix",
        "google-tunix",
        "GRPO, `kl`",
        "loss",
        tunix_grpo("kl"),
        tunix_grpo_default("kl"),
        "The default is k1 in the loss: it holds nothing near the reference. Each response is "
        "divided by its length, so what is left lengthens responses. Take `low_var_kl`.",
        engine=True,
        framework="jax",
    ),
    Entry(
        "tunix-grpo-k3",
        "tunix",
        "google-tunix",
        "GRPO, `low_var_kl`",
        "loss",
        tunix_grpo("low_var_kl"),
        tunix_grpo_default("low_var_kl"),
        "It pulls along the other divergence, each response divided by its length.",
        engine=True,
        framework="jax",
    ),
    Entry(
        "tunix-ppo",
        "tunix",
        "google-tunix",
        "PPO",
        "reward of a token",
        tunix_reward,
        tunix_reward_default,
        "On by default with k3, which belongs into a loss: in the reward take `kl`.",
        how="function",
        framework="jax",
        alone=True,
    ),
    Entry(
        "unsloth",
        "unsloth-zoo",
        "unsloth-zoo",
        "GRPO",
        "loss",
        unsloth_loss(corrected=False),
        unsloth_default(False),
        "The trainer says whether there is a weight; without one it pulls along the other "
        "divergence, and not at all beyond the clamp.",
        how="function",
        engine=True,
    ),
    Entry(
        "unsloth-corrected",
        "unsloth-zoo",
        "unsloth-zoo",
        "GRPO, `use_bias_correction_kl`",
        "loss",
        unsloth_loss(corrected=True),
        unsloth_default(True),
        "Right per token, as in TRL, up to the clamp of the product at 10, beyond which it "
        "does not pull.",
        how="function",
        engine=True,
    ),
    Entry(
        "liger",
        "Liger-Kernel",
        "liger-kernel",
        "GRPO",
        "loss",
        liger_loss(corrected=False),
        liger_default(False),
        "Used by itself it is on, without a weight, and pulls along the other divergence.",
        engine=True,
    ),
    Entry(
        "liger-corrected",
        "Liger-Kernel",
        "liger-kernel",
        "GRPO, `use_bias_correction_kl`",
        "loss",
        liger_loss(corrected=True),
        liger_default(True),
        "Right per token, as in TRL.",
        engine=True,
    ),
    Entry(
        "tinker",
        "tinker-cookbook",
        "tinker-cookbook",
        "RL, `kl_penalty_coef`",
        "advantage",
        tinker_advantage,
        tinker_default,
        "With the default `kl_discount_factor` of 0 each token pays for itself only, without the "
        "divergence to go; with 1 for all that follows.",
        how="function",
        alone=True,
    ),
]
