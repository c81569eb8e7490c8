(** * Numbers of float64, and rounding to the nearest *)
From Coq Require Export Reals Lra.
From Coq Require Import Lia.
From Flocq Require Import Core Mult_error.
Open Scope R_scope.

(** Numbers of 53 bits that are multiples of 2^-1074: the finite float64 numbers, but without a largest one. *)
Definition float64 (a : R) : Prop := generic_format radix2 (FLT_exp (-1074) 53) a.

(** Rounding to the nearest of them, ties to even. *)
Definition rnd (a : R) : R := round radix2 (FLT_exp (-1074) 53) ZnearestE a.

(** The unit in the last place: the distance of neighbours from |a| upwards; 2^-1074 at 0. *)
Definition ulp64 (a : R) : R := ulp radix2 (FLT_exp (-1074) 53) a.

(** Powers of two, for whole exponents of any sign. *)
Definition two (m : Z) : R := bpow radix2 m.

Global Instance precision_positive : Prec_gt_0 53.
Proof. easy. Qed.

Lemma two_pos m : 0 < two m.
Proof. apply bpow_gt_0. Qed.

Lemma two_plus m n : two (m + n) = two m * two n.
Proof. apply bpow_plus. Qed.

Lemma two_le m n : (m <= n)%Z -> two m <= two n.
Proof. apply bpow_le. Qed.

Lemma two_lt m n : (m < n)%Z -> two m < two n.
Proof. apply bpow_lt. Qed.

Lemma two_S m : two (m + 1) = 2 * two m.
Proof. rewrite two_plus. change (two 1) with 2. ring. Qed.

Lemma ulp64_least a : two (-1074) <= ulp64 a.
Proof.
  destruct (Req_dec a 0) as [->|N]; unfold ulp64; [rewrite ulp_FLT_0 by easy; apply Rle_refl|].
  rewrite ulp_neq_0 by easy. apply bpow_le. unfold cexp, FLT_exp. lia.
Qed.

Lemma ulp64_pos a : 0 < ulp64 a.
Proof. eapply Rlt_le_trans; [apply two_pos|apply ulp64_least]. Qed.

Lemma ulp64_abs a : ulp64 (Rabs a) = ulp64 a.
Proof. apply ulp_abs. Qed.

Lemma ulp64_le a b : Rabs a <= Rabs b -> ulp64 a <= ulp64 b.
Proof. apply ulp_le; [now apply FLT_exp_valid|apply FLT_exp_monotone]. Qed.

(** Below 2^m the unit is at most 2^(m - 53), from 2^m on at least 2^(m - 52). *)
Lemma ulp64_below a m : (-1021 <= m)%Z -> Rabs a < two m -> ulp64 a <= two (m - 53).
Proof.
  intros M H. destruct (Req_dec a 0) as [->|N].
  - unfold ulp64. rewrite ulp_FLT_0 by easy. apply bpow_le. lia.
  - unfold ulp64. rewrite ulp_neq_0 by easy. apply bpow_le. unfold cexp, FLT_exp.
    assert (mag radix2 a <= m)%Z by (apply mag_le_bpow; easy). lia.
Qed.

Lemma ulp64_from a m : two m <= Rabs a -> two (m - 52) <= ulp64 a.
Proof.
  intros H. assert (N : a <> 0). { intros ->. rewrite Rabs_R0 in H. assert (P := two_pos m). lra. }
  unfold ulp64. rewrite ulp_neq_0 by easy. apply bpow_le. unfold cexp, FLT_exp.
  assert (m + 1 <= mag radix2 a)%Z by (apply mag_ge_bpow; replace (m + 1 - 1)%Z with m by lia; easy). lia.
Qed.

(** It is more than 2^-53 times the number, and for numbers that are not tiny at most 2^-52 times. *)
Lemma ulp64_above a : Rabs a * two (-53) <= ulp64 a.
Proof. left. exact (ulp_FLT_gt radix2 (-1074) 53 a). Qed.

Lemma ulp64_relative a : two (-1022) <= Rabs a -> ulp64 a <= Rabs a * two (-52).
Proof. exact (ulp_FLT_le radix2 (-1074) 53 a). Qed.

(** Rounding is off by at most half a unit, of the number or of what it is rounded to. *)
Lemma rnd_error a : Rabs (rnd a - a) <= ulp64 a / 2.
Proof. unfold rnd, ulp64. assert (H := error_le_half_ulp radix2 (FLT_exp (-1074) 53) (fun n => negb (Z.even n)) a). lra. Qed.

Lemma rnd_error_result a : Rabs (rnd a - a) <= ulp64 (rnd a) / 2.
Proof.
  unfold rnd, ulp64. assert (H := error_le_half_ulp_round radix2 (FLT_exp (-1074) 53) (fun n => negb (Z.even n)) a). lra.
Qed.

Lemma rnd_exact a : float64 a -> rnd a = a.
Proof. apply round_generic. apply valid_rnd_N. Qed.

Lemma rnd_le a b : a <= b -> rnd a <= rnd b.
Proof. apply round_le; [apply FLT_exp_valid; easy|apply valid_rnd_N]. Qed.

Lemma float64_two m : (-1074 <= m)%Z -> float64 (two m).
Proof. intros H. apply generic_format_bpow. unfold FLT_exp. lia. Qed.

Lemma float64_opp a : float64 a -> float64 (- a).
Proof. apply generic_format_opp. Qed.

Lemma rnd_abs_le a m : (-1074 <= m)%Z -> Rabs a <= two m -> Rabs (rnd a) <= two m.
Proof.
  intros M H. apply Rabs_le. apply Rabs_le_inv in H. assert (F := float64_two m M).
  rewrite <- (rnd_exact (two m)) by easy. split.
  - rewrite <- (rnd_exact (- rnd (two m))). 2: { rewrite rnd_exact by easy. now apply float64_opp. }
    apply rnd_le. rewrite rnd_exact by easy. easy.
  - apply rnd_le. easy.
Qed.

Lemma rnd_nonneg a : 0 <= a -> 0 <= rnd a.
Proof. intros H. rewrite <- (rnd_exact 0); [now apply rnd_le|apply generic_format_0]. Qed.

Lemma rnd_error_below a m : (-1021 <= m)%Z -> Rabs a <= two m -> Rabs (rnd a - a) <= two (m - 54).
Proof.
  intros M [H|H].
  - eapply Rle_trans; [apply rnd_error|]. assert (U := ulp64_below a m M H).
    replace (m - 53)%Z with (m - 54 + 1)%Z in U by lia. rewrite two_S in U. lra.
  - assert (F : float64 a).
    { assert (G := float64_two m ltac:(lia)). destruct (Rle_or_lt 0 a) as [S|S].
      - rewrite Rabs_pos_eq in H by easy. now rewrite H.
      - rewrite Rabs_left in H by easy. replace a with (- two m) by lra. now apply float64_opp. }
    rewrite rnd_exact by easy. unfold Rminus. rewrite Rplus_opp_r, Rabs_R0. left. apply two_pos.
Qed.

(** With underflow: 2^-53 of the number and half of 2^-1074. *)
Lemma rnd_error_relative a : Rabs (rnd a - a) <= Rabs a * two (-53) + two (-1075).
Proof.
  eapply Rle_trans; [apply rnd_error|]. destruct (Rle_or_lt (two (-1022)) (Rabs a)) as [H|H].
  - assert (U := ulp64_relative a H). replace (-52)%Z with (-53 + 1)%Z in U by easy. rewrite two_S in U.
    assert (P := two_pos (-1075)). lra.
  - assert (U : ulp64 a <= two (-1074)).
    { eapply Rle_trans; [apply (ulp64_below a (-1021)); [easy|]|apply two_le; easy].
      eapply Rlt_trans; [exact H|now apply two_lt]. }
    replace (-1074)%Z with (-1075 + 1)%Z in U by easy. rewrite two_S in U.
    assert (0 <= Rabs a * two (-53)); [|lra]. apply Rmult_le_pos; [apply Rabs_pos|left; apply two_pos].
Qed.

(** Halving is exact, unless the result is tiny. *)
Lemma float64_half a : float64 a -> two (-1021) <= Rabs a -> float64 (a / 2).
Proof.
  intros F H. replace (a / 2) with (a * bpow radix2 (-1)) by reflexivity. apply mult_bpow_exact_FLT; [easy|].
  assert (-1020 <= mag radix2 a)%Z by now apply mag_ge_bpow. lia.
Qed.

(** An error of d units before the last rounding is one of at most d + 1/2 after it, in units of the larger of both numbers. *)
Lemma last_rounding a b d : Rabs (a - b) <= d * ulp64 b -> 0 <= d ->
  Rabs (rnd a - b) <= (d + 1 / 2) * Rmax (ulp64 (rnd a)) (ulp64 b).
Proof.
  intros H D. replace (rnd a - b) with ((rnd a - a) + (a - b)) by ring. eapply Rle_trans; [apply Rabs_triang|].
  assert (E := rnd_error_result a). assert (L := Rmax_l (ulp64 (rnd a)) (ulp64 b)).
  assert (M := Rmax_r (ulp64 (rnd a)) (ulp64 b)). set (m := Rmax _ _) in *.
  assert (d * ulp64 b <= d * m) by (apply Rmult_le_compat_l; lra). lra.
Qed.
