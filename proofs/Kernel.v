(** * The accurate kernel of k₃ in float64 *)
From Coq Require Import Lia.
From Flocq Require Import Core.
From Coquelicot Require Import Coquelicot.
From Interval Require Import Tactic.
From KL Require Export KernelRounding.
Open Scope R_scope.

(** ** Below 1/8 *)

Lemma expm1_size x : Rabs x <= 1 -> Rabs x / 2 <= Rabs (exp x - 1) <= 2 * Rabs x.
Proof.
  intros H. apply Rabs_le_between in H. destruct (Rle_or_lt 0 x) as [S|S].
  - assert (A := exp_ineq1_le x). rewrite !Rabs_pos_eq by lra. split; [lra|].
    destruct (exp_remainder_pos 2 x S) as [_ D]. unfold exp_sum, term in D. simpl in D.
    assert (E : exp x <= 3).
    { apply Rle_trans with (exp 1); [|apply exp_le_3]. destruct (Rle_lt_or_eq_dec x 1 ltac:(lra)) as [L| ->]; [|lra].
      left. now apply exp_increasing. }
    assert (0 <= x * (x * (x * 1)) / (2 + 1 + 1 + 1 + 1) * (3 - exp x)); [|nra].
    apply Rmult_le_pos; [|lra]. apply Rmult_le_pos; [|lra]. repeat apply Rmult_le_pos; lra.
  - assert (B : exp x < 1) by (rewrite <- exp_0; now apply exp_increasing). rewrite !Rabs_left by lra.
    assert (A := exp_ineq1_le x). split; [|lra].
    assert (C := exp_ineq1_le (- x)). assert (P := exp_pos x).
    apply (Rmult_le_compat_l (exp x)) in C; [|lra]. rewrite <- exp_plus, Rplus_opp_r, exp_0 in C. nra.
Qed.

Lemma k3_exp_square x : Rabs x <= 1 / 2 -> k3_exp x <= x ^ 2.
Proof.
  intros H. apply Rabs_le_between in H. unfold k3_exp. destruct (Rle_or_lt 0 x) as [S|S].
  - destruct (exp_remainder_pos 1 x S) as [_ D]. unfold exp_sum, term in D. simpl in D.
    assert (C := exp_ineq1_le (- x)). assert (P := exp_pos x).
    apply (Rmult_le_compat_l (exp x)) in C; [|lra]. rewrite <- exp_plus, Rplus_opp_r, exp_0 in C.
    assert (exp x <= 2) by nra. assert (0 <= x ^ 2) by apply pow2_ge_0. nra.
  - destruct (exp_remainder_neg 1 (- x) ltac:(lra)) as [_ D]. rewrite Ropp_involutive in D.
    unfold exp_sum, term in D. simpl in D. nra.
Qed.

Section Small.
Variables E x k : R.
Hypotheses (F : float64 x) (K : 5 / 8 <= k) (HE : Rabs (E - (exp x - 1)) <= k * ulp64 (exp x - 1)).
Let good := Rabs (factor_float (rnd (x * (1 / 2))) * E - k3_exp x) <= 4 * k * ulp64 (k3_exp x).

Lemma near_small : two (-540) <= Rabs x <= 1 / 8 -> good.
Proof.
  intros [L H]. unfold good.
  assert (L' : two (-1021) <= Rabs x) by (eapply Rle_trans; [apply two_le|exact L]; easy).
  rewrite half_exact by easy.
  assert (N : x <> 0). { intros ->. rewrite Rabs_R0 in L. assert (P := two_pos (-540)). lra. }
  set (Z := (x / 2) ^ 2). set (u := two (-53)). set (τ := two (-1075)). set (a := Rabs (x / 2)).
  assert (Hu : u = / 9007199254740992) by reflexivity.
  assert (Pτ : 0 < τ) by apply two_pos. assert (Pu : 0 < u) by apply two_pos.
  assert (Ha : a = Rabs x / 2). { unfold a, Rdiv. rewrite Rabs_mult, (Rabs_pos_eq (/ 2)) by lra. easy. }
  assert (HZ : Z = a * a). { unfold Z, a. rewrite <- Rabs_mult, Rabs_pos_eq; [ring|apply Rle_0_sqr]. }
  assert (Pa : 0 < a) by (assert (P := Rabs_pos_lt x N); lra).
  (* 2^-1075 is nothing beside x *)
  assert (Hτ : 1000 * τ <= u / 1000 * a).
  { apply Rle_trans with (two 10 * τ); [apply Rmult_le_compat_r; [lra|change (two 10) with 1024; lra]|].
    apply Rle_trans with (u * two (-10) * two (-541)).
    - unfold τ, u. rewrite <- !two_plus. apply two_le. easy.
    - change (two (-10)) with (/ 1024). assert (two (-541) <= a).
      { rewrite Ha. replace (two (-540)) with (2 * two (-541)) in L by (symmetry; apply (two_S (-541))). lra. }
      assert (0 < two (-541)) by apply two_pos. rewrite Hu. nra. }
  assert (R1 : Rabs (rnd Z - Z) <= Z * u + τ).
  { assert (B := rnd_error_relative Z). rewrite (Rabs_pos_eq Z) in B by (rewrite HZ; nra). exact B. }
  assert (Z0 : 0 <= Z <= a / 16) by (rewrite HZ; split; nra).
  set (w := (0.3334 * (Z + (Z * u + τ)) * u + τ) + 1.04 * / 2 ^ 55 * (Z + (Z * u + τ)) + 0.334 * (Z * u + τ)).
  assert (W : 0 <= w <= u * Z + u / 500 * a).
  { unfold w. replace (/ 2 ^ 55) with (u / 4) by (rewrite Hu; field). split; [|rewrite Hu in *; lra].
    rewrite Hu in *. lra. }
  assert (D : Rabs (factor_float (x / 2) - factor x) <= ((Rabs (factor x) + w) * u + τ) + w).
  { apply (factor_error x (Z * u + τ) (0.3334 * (Z + (Z * u + τ)) * u + τ)); fold Z.
    - lra.
    - exact R1.
    - intros b B. eapply Rle_trans; [apply rnd_error_relative|]. fold u τ. apply Rplus_le_compat_r, Rmult_le_compat_r; [lra|exact B].
    - fold w. intros b B. eapply Rle_trans; [apply rnd_error_relative|]. fold u τ. apply Rplus_le_compat_r, Rmult_le_compat_r; [lra|exact B]. }
  (* the factor is within 4 % of x/2 *)
  assert (S : 0.97 * a <= Rabs (factor x)).
  { unfold factor. fold Z. assert (V := coth_poly_values Z ltac:(lra)).
    assert (T := Rabs_triang_inv (x / 2) (Z * coth_poly Z)). fold a in T.
    rewrite (Rabs_pos_eq (Z * coth_poly Z)) in T by (apply Rmult_le_pos; lra). nra. }
  set (f := Rabs (factor x)) in *. set (e := Rabs (exp x - 1)) in *.
  assert (D' : Rabs (factor_float (x / 2) - factor x) <= 1.08 * u * f).
  { eapply Rle_trans; [exact D|]. rewrite Hu in *. lra. }
  assert (M : Rabs (missed x) <= 0.11 * u * (f * e)).
  { eapply Rle_trans; [apply missed_all; [exact N|apply Rabs_le_between; lra]|]. fold Z e.
    assert (0 <= e) by apply Rabs_pos. rewrite <- !Rmult_assoc. apply Rmult_le_compat_r; trivial.
    change (IZR (10 ^ 18)) with 1000000000000000000. rewrite Hu. lra. }
  assert (X := expm1_size x ltac:(lra)). fold e in X.
  assert (U : ulp64 (exp x - 1) <= 2 * u * e).
  { assert (Q : two (-52) = 2 * u) by apply (two_S (-53)). replace (2 * u * e) with (e * two (-52)) by (rewrite Q; ring).
    apply ulp64_relative. fold e. apply Rle_trans with (two (-541)); [apply two_le; easy|].
    replace (two (-540)) with (2 * two (-541)) in L by (symmetry; apply (two_S (-541))). lra. }
  assert (HE' : Rabs (E - (exp x - 1)) <= k * (2 * u * e)).
  { eapply Rle_trans; [exact HE|]. apply Rmult_le_compat_l; lra. }
  eapply Rle_trans; [apply (before_last E x _ _ _ _ HE' D' M)|]. fold e f.
  assert (V := ulp64_above (k3_exp x)). fold u in V.
  assert (G : e * f <= Rabs (k3_exp x) + 0.11 * u * (f * e)).
  { unfold e, f. rewrite <- Rabs_mult. replace ((exp x - 1) * factor x) with (k3_exp x + missed x) by (rewrite missed_is; ring).
    eapply Rle_trans; [apply Rabs_triang|]. apply Rplus_le_compat_l. exact M. }
  assert (0 <= e) by apply Rabs_pos. assert (0 <= f) by apply Rabs_pos.
  set (y := e * f) in *. assert (0 <= y) by (apply Rmult_le_pos; easy).
  replace (f * e) with y in * by (unfold y; ring).
  apply Rle_trans with (u * y * (2 * k * 1.001 + 1.2)).
  - replace (k * (2 * u * e) * (f + 1.08 * u * f) + e * (1.08 * u * f) + 0.11 * u * y) with
      (u * y * (2 * k * (1 + 1.08 * u) + 1.19)) by (unfold y; lra).
    apply Rmult_le_compat_l; [apply Rmult_le_pos; [lra|easy]|]. rewrite Hu. lra.
  - apply Rle_trans with (Rabs (k3_exp x) * u * (4 * k)).
    + assert (y * (1 - 0.11 * u) <= Rabs (k3_exp x)) by lra.
      apply Rle_trans with (y * (1 - 0.11 * u) * u * (4 * k)).
      * replace (u * y * (2 * k * 1.001 + 1.2)) with (y * u * (2 * k * 1.001 + 1.2)) by ring.
        replace (y * (1 - 0.11 * u) * u * (4 * k)) with (y * u * ((1 - 0.11 * u) * (4 * k))) by ring.
        apply Rmult_le_compat_l; [apply Rmult_le_pos; [easy|lra]|]. rewrite Hu. lra.
      * apply Rmult_le_compat_r; [lra|]. apply Rmult_le_compat_r; [lra|easy].
    + replace (4 * k * ulp64 (k3_exp x)) with (ulp64 (k3_exp x) * (4 * k)) by ring. apply Rmult_le_compat_r; lra.
Qed.

(** Below 2^-540 the result is less than a unit, which is 2^-1074. *)
Lemma near_tiny : Rabs x <= two (-540) -> good.
Proof.
  intros H. unfold good.
  assert (T : two (-540) <= 1) by (apply (bpow_le Zaux.radix2 (-540) 0); easy).
  assert (X := expm1_size x ltac:(lra)).
  assert (Q : two (-539) = 2 * two (-540)) by apply (two_S (-540)).
  assert (Q' : two (-540) = 2 * two (-541)) by apply (two_S (-541)).
  assert (U : ulp64 (exp x - 1) <= two (-591)).
  { apply (ulp64_below _ (-538)); [easy|]. assert (two (-539) < two (-538)) by now apply two_lt. lra. }
  set (h := rnd (x * (1 / 2))).
  assert (Hh : Rabs h <= two (-541)).
  { apply rnd_abs_le; [easy|]. rewrite Rabs_mult, (Rabs_pos_eq (1 / 2)) by lra. lra. }
  assert (S : Rabs (factor_float h) <= two (-540)).
  { unfold factor_float. apply rnd_abs_le; [easy|].
    assert (Z : 0 <= rnd (h * h) <= two (-1074)).
    { split; [apply rnd_nonneg, Rle_0_sqr|]. apply (Rle_trans _ _ _ (Rle_abs _)), rnd_abs_le; [easy|].
      rewrite Rabs_mult. apply Rle_trans with (two (-541) * two (-541)).
      - apply Rmult_le_compat; trivial; apply Rabs_pos.
      - rewrite <- two_plus. apply two_le. easy. }
    assert (T2 : two (-1074) <= 1 / 4). { apply Rle_trans with (two (-2)); [apply two_le; easy|]. change (two (-2)) with (/ 4). lra. }
    assert (R : 0 <= rnd (h * h) <= 1 / 4) by lra.
    assert (P := poly_float_error _ R). assert (V := coth_poly_values _ R).
    set (z := rnd (h * h)) in *.
    assert (W : Rabs (rnd (poly_float z * z)) <= two (-1074)).
    { apply rnd_abs_le; [easy|]. rewrite Rabs_mult, (Rabs_pos_eq z) by lra.
      assert (Rabs (poly_float z) <= 1).
      { replace (poly_float z) with ((poly_float z - coth_poly z) + coth_poly z) by ring.
        eapply Rle_trans; [apply Rabs_triang|]. rewrite (Rabs_pos_eq (coth_poly z)) by lra. lra. }
      assert (0 <= Rabs (poly_float z)) by apply Rabs_pos. nra. }
    eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_Ropp.
    assert (two (-1074) <= two (-541)) by now apply two_le. lra. }
  set (s := factor_float h) in *.
  assert (φ : Rabs (k3_exp x) <= two (-1078)).
  { apply Rle_trans with (Rabs x * Rabs x).
    - assert (A := exp_ineq1_le x). rewrite Rabs_pos_eq by (unfold k3_exp; lra).
      rewrite <- Rabs_mult, Rabs_pos_eq by apply Rle_0_sqr. replace (x * x) with (x ^ 2) by ring. apply k3_exp_square.
      assert (two (-540) <= two (-1)) by now apply two_le. change (two (-1)) with (/ 2) in *. lra.
    - apply Rle_trans with (two (-540) * two (-540)); [apply Rmult_le_compat; trivial; apply Rabs_pos|].
      rewrite <- two_plus. apply two_le. easy. }
  replace (s * E - k3_exp x) with ((E - (exp x - 1)) * s + ((exp x - 1) * s - k3_exp x)) by ring.
  assert (I : Rabs ((E - (exp x - 1)) * s) <= k * two (-1078)).
  { rewrite Rabs_mult. apply Rle_trans with (k * two (-591) * two (-540)).
    - apply Rmult_le_compat; try apply Rabs_pos; trivial. eapply Rle_trans; [exact HE|]. apply Rmult_le_compat_l; lra.
    - rewrite Rmult_assoc, <- two_plus. apply Rmult_le_compat_l; [lra|]. apply two_le. easy. }
  assert (J : Rabs ((exp x - 1) * s) <= two (-1078)).
  { rewrite Rabs_mult. apply Rle_trans with (two (-539) * two (-540)).
    - apply Rmult_le_compat; try apply Rabs_pos; trivial. lra.
    - rewrite <- two_plus. apply two_le. easy. }
  assert (V := ulp64_least (k3_exp x)).
  assert (W : two (-1074) = 16 * two (-1078)). { exact (two_plus 4 (-1078)). }
  assert (P := two_pos (-1078)).
  eapply Rle_trans; [apply Rabs_triang|]. eapply Rle_trans; [apply Rplus_le_compat_l, Rabs_triang|]. rewrite Rabs_Ropp.
  assert (4 * k * (16 * two (-1078)) <= 4 * k * ulp64 (k3_exp x)) by (apply Rmult_le_compat_l; lra). nra.
Qed.
End Small.

Lemma near_before_last E x k : float64 x -> 5 / 8 <= k -> Rabs x <= 1 ->
  Rabs (E - (exp x - 1)) <= k * ulp64 (exp x - 1) ->
  Rabs (factor_float (rnd (x * (1 / 2))) * E - k3_exp x) <= 4 * k * ulp64 (k3_exp x).
Proof.
  intros F K H HE. destruct (Rle_or_lt (Rabs x) (two (-540))); [now apply near_tiny|].
  destruct (Rle_or_lt (Rabs x) (1 / 8)) as [S|S]; [apply near_small; trivial; lra|].
  apply Rabs_le_between in H. destruct (Rle_or_lt 0 x) as [P|P].
  - rewrite Rabs_pos_eq in S by easy. apply near_right; trivial; lra.
  - rewrite Rabs_left in S by easy. apply near_left; trivial; lra.
Qed.

(** ** From 1 on *)

Lemma far_before_last E x k : 0 <= k -> 1 <= Rabs x -> Rabs (E - (exp x - 1)) <= k * ulp64 (exp x - 1) ->
  Rabs (E - x - k3_exp x) <= 4 * k * ulp64 (k3_exp x).
Proof.
  intros K H HE. replace (E - x - k3_exp x) with (E - (exp x - 1)) by (unfold k3_exp; ring).
  eapply Rle_trans; [exact HE|]. rewrite (Rmult_comm 4), Rmult_assoc. apply Rmult_le_compat_l; [easy|].
  assert (N : x <> 0). { intros ->. rewrite Rabs_R0 in H. lra. }
  assert (P := k3_exp_pos x N). assert (A := thm_accurate_kernel_far x H).
  assert (C : (exp 1 - 1) / (exp 1 - 2) < 4) by interval with (i_prec 60).
  destruct (mag radix2 (k3_exp x)) as [m B]. specialize (B ltac:(lra)).
  rewrite (Rabs_pos_eq (k3_exp x)) in B by lra.
  assert (V : two (m - 1 - 52) <= ulp64 (k3_exp x)) by (apply ulp64_from; rewrite Rabs_pos_eq by lra; apply B).
  assert (L : (-1000 <= m)%Z).
  { destruct (Z_lt_le_dec m (-1000)) as [S|]; [exfalso|easy].
    assert (two m <= two (-3)) by (apply two_le; lia). change (two (-3)) with (/ 8) in *. unfold two in *.
    assert (1 / 2 <= Rabs (exp x - 1)); [|nra]. destruct (Rle_or_lt 0 x) as [Q|Q].
    - rewrite Rabs_pos_eq in H by easy. assert (D := exp_ineq1_le x). rewrite Rabs_pos_eq; lra.
    - rewrite Rabs_left in H by easy. assert (D := exp_ineq1_le (- x)). assert (G := exp_pos x).
      apply (Rmult_le_compat_l (exp x)) in D; [|lra]. rewrite <- exp_plus, Rplus_opp_r, exp_0 in D.
      assert (exp x <= 1 / 2) by nra. rewrite Rabs_left; lra. }
  assert (U : ulp64 (exp x - 1) <= two (m + 2 - 53)).
  { apply ulp64_below; [lia|]. rewrite (two_plus m 2). change (two 2) with 4. unfold two. nra. }
  eapply Rle_trans; [exact U|]. replace (m + 2 - 53)%Z with (2 + (m - 1 - 52))%Z by lia. rewrite two_plus.
  change (two 2) with 4. lra.
Qed.

(** ** All of it *)

(** Both routes choose the near form where |x| < 1: for NumPy z < 1/4 says the same, rounded or not. *)
Theorem thm_accurate_kernel_routes E x : float64 x -> k3_numpy E x = k3_arrays E x.
Proof.
  intros F. unfold k3_numpy, k3_arrays. cbv zeta. set (h := rnd (x * (1 / 2))).
  assert (Q : 1 / 4 = two (-2)) by (change (two (-2)) with (/ 4); lra).
  destruct (Rlt_dec (Rabs x) 1) as [L|L]; destruct (Rle_dec (1 / 4) (rnd (h * h))) as [G|G]; trivial; exfalso.
  - assert (H : Rabs h <= 1 / 2 - two (-54)).
    { assert (P : Rabs x <= 1 - two (-53)).
      { assert (B := pred_ge_gt radix2 (FLT_exp (-1074) 53) (Rabs x) 1 ltac:(now apply generic_format_abs) (float64_two 0 ltac:(easy)) L).
        assert (C := pred_bpow radix2 (FLT_exp (-1074) 53) 0). change (bpow radix2 0) with 1 in C. rewrite C in B. exact B. }
      change (two (-53)) with (/ 9007199254740992) in P. change (two (-54)) with (/ 18014398509481984).
      destruct (Rle_or_lt (Rabs x) (two (-1021))) as [T|T].
      - apply Rle_trans with (two (-2)); [apply rnd_abs_le; [easy|]|change (two (-2)) with (/ 4); lra].
        assert (two (-1021) <= two (-1)) by now apply two_le. change (two (-1)) with (/ 2) in *. change (two (-2)) with (/ 4).
        rewrite Rabs_mult, (Rabs_pos_eq (1 / 2)) by lra. lra.
      - unfold h. rewrite half_exact by (trivial; lra). unfold Rdiv. rewrite Rabs_mult, (Rabs_pos_eq (/ 2)) by lra. lra. }
    assert (S : 0 <= h * h <= 1 / 4 - two (-55)).
    { split; [apply Rle_0_sqr|]. rewrite <- (Rabs_pos_eq (h * h)), Rabs_mult by apply Rle_0_sqr.
      assert (0 <= Rabs h) by apply Rabs_pos. change (two (-54)) with (/ 18014398509481984) in H.
      change (two (-55)) with (/ 36028797018963968). nra. }
    assert (B := rnd_error_below (h * h) (-2) ltac:(easy)). rewrite Rabs_pos_eq in B by easy.
    assert (0 < two (-55)) by apply two_pos. specialize (B ltac:(lra)). apply Rabs_le_between in B.
    change (two (-2 - 54)) with (/ 72057594037927936) in B. change (two (-55)) with (/ 36028797018963968) in *. lra.
  - apply G. rewrite Q, <- (rnd_exact (two (-2))) by (apply float64_two; easy). apply rnd_le. rewrite <- Q.
    unfold h. rewrite half_exact; trivial.
    + assert (x <= -1 \/ 1 <= x) by (revert L; unfold Rabs; destruct Rcase_abs; lra). nra.
    + apply Rle_trans with 1; [|lra]. apply (two_le (-1021) 0). easy.
Qed.

Lemma before_last_rounding E x k : float64 x -> 5 / 8 <= k -> Rabs (E - (exp x - 1)) <= k * ulp64 (exp x - 1) ->
  exists a, k3_numpy E x = rnd a /\ Rabs (a - (exp x - 1 - x)) <= 4 * k * ulp64 (exp x - 1 - x).
Proof.
  intros F K HE. rewrite thm_accurate_kernel_routes by easy. unfold k3_arrays.
  destruct (Rlt_dec (Rabs x) 1) as [L|L].
  - eexists. split; [apply near_is|]. apply near_before_last; trivial. lra.
  - eexists. split; [reflexivity|]. apply far_before_last; trivial; lra.
Qed.

(** For every float64 number x, if the library's expm1(x) is within k units in the last place, k ≥ 5/8, then the computed k₃
    is within 4k + 1/2 units, of the larger of both numbers if there is a power of two between them. *)
Theorem thm_accurate_kernel_float64 k E x : 5 / 8 <= k -> float64 x ->
  Rabs (E - (exp x - 1)) <= k * ulp64 (exp x - 1) ->
  Rabs (k3_numpy E x - (exp x - 1 - x)) <= (4 * k + 1 / 2) * Rmax (ulp64 (k3_numpy E x)) (ulp64 (exp x - 1 - x)).
Proof.
  intros K F HE. destruct (before_last_rounding E x k F K HE) as (a & -> & B). apply last_rounding; lra.
Qed.

(** So it is within 3 units with an expm1 that is correctly rounded, or within 5/8. *)
Theorem thm_accurate_kernel_float64_3_ulp E x : float64 x ->
  Rabs (E - (exp x - 1)) <= 5 / 8 * ulp64 (exp x - 1) ->
  Rabs (k3_numpy E x - (exp x - 1 - x)) <= 3 * Rmax (ulp64 (k3_numpy E x)) (ulp64 (exp x - 1 - x)).
Proof.
  intros F HE. replace 3 with (4 * (5 / 8) + 1 / 2) by lra. apply thm_accurate_kernel_float64; trivial. lra.
Qed.

(** In units of the exact value alone half a unit more. *)
Theorem thm_accurate_kernel_float64_exact k E x : 5 / 8 <= k <= 1000 -> float64 x ->
  Rabs (E - (exp x - 1)) <= k * ulp64 (exp x - 1) ->
  Rabs (k3_numpy E x - (exp x - 1 - x)) <= (4 * k + 1) * ulp64 (exp x - 1 - x).
Proof.
  intros K F HE. destruct (before_last_rounding E x k F ltac:(lra) HE) as (a & -> & B). set (φ := exp x - 1 - x) in *.
  assert (U : ulp64 a <= 2 * ulp64 φ).
  { assert (A : exists m, (-1021 <= m)%Z /\ Rabs φ < two m /\ two (m - 53) <= ulp64 φ).
    { destruct (Rle_or_lt (two (-1021)) (Rabs φ)) as [L|L].
      - assert (N : φ <> 0). { intros Q. rewrite Q, Rabs_R0 in L. assert (P := two_pos (-1021)). lra. }
        destruct (mag radix2 φ) as [m M]. specialize (M N). exists m.
        assert (-1021 < m)%Z by (apply (lt_bpow radix2); unfold two in L; lra).
        split; [lia|]. split; [apply M|]. replace (m - 53)%Z with (m - 1 - 52)%Z by lia. now apply ulp64_from.
      - exists (-1021)%Z. split; [easy|]. split; [easy|]. apply ulp64_least. }
    destruct A as (m & M & L & V).
    assert (W : two m = 9007199254740992 * two (m - 53)).
    { replace m with (53 + (m - 53))%Z at 1 by lia. now rewrite two_plus. }
    assert (V' : ulp64 φ <= two (m - 53)) by now apply ulp64_below.
    assert (P := two_pos (m - 53)).
    apply Rle_trans with (2 * two (m - 53)); [|lra]. rewrite <- two_S. replace (m - 53 + 1)%Z with (m + 1 - 53)%Z by lia.
    apply ulp64_below; [lia|]. rewrite two_S. replace a with (φ + (a - φ)) by ring.
    eapply Rle_lt_trans; [apply Rabs_triang|]. nra. }
  replace (rnd a - φ) with ((rnd a - a) + (a - φ)) by ring. eapply Rle_trans; [apply Rabs_triang|].
  assert (R := rnd_error a). lra.
Qed.

(** ** Overflow *)

(** The largest float64 number. *)
Definition largest : R := IZR (2 ^ 53 - 1) * two 971.

Lemma float64_largest : float64 largest.
Proof.
  apply generic_format_FLT. exists (Float radix2 (2 ^ 53 - 1) 971); [reflexivity|easy|easy].
Qed.

Lemma rnd_largest a : Rabs a <= largest -> Rabs (rnd a) <= largest.
Proof.
  intros H. apply Rabs_le_inv in H. destruct H as [L U]. assert (F := float64_largest).
  apply rnd_le in L, U. rewrite (rnd_exact (- largest)) in L by now apply float64_opp. rewrite (rnd_exact largest) in U by easy. apply Rabs_le. split; assumption.
Qed.

(** The second factor is at most 1, as is everything that it is computed from. *)
Lemma factor_float_size x : Rabs x <= 1 -> Rabs (factor_float (rnd (x * (1 / 2)))) <= 1.
Proof.
  intros H. set (h := rnd (x * (1 / 2))).
  assert (Hh : Rabs h <= 1 / 2).
  { replace (1 / 2) with (two (-1)) by (change (two (-1)) with (/ 2); lra). apply rnd_abs_le; [easy|].
    change (two (-1)) with (/ 2). rewrite Rabs_mult, (Rabs_pos_eq (1 / 2)) by lra. lra. }
  assert (Z : 0 <= rnd (h * h) <= 1 / 4).
  { split; [apply rnd_nonneg, Rle_0_sqr|]. replace (1 / 4) with (two (-2)) by (change (two (-2)) with (/ 4); lra).
    apply (Rle_trans _ _ _ (Rle_abs _)), rnd_abs_le; [easy|]. change (two (-2)) with (/ 4). rewrite Rabs_mult.
    assert (0 <= Rabs h) by apply Rabs_pos. nra. }
  assert (P := poly_float_error _ Z). assert (V := coth_poly_values _ Z). unfold factor_float. set (z := rnd (h * h)) in *.
  assert (W : Rabs (rnd (poly_float z * z)) <= 1 / 4).
  { replace (1 / 4) with (two (-2)) by (change (two (-2)) with (/ 4); lra). apply rnd_abs_le; [easy|]. change (two (-2)) with (/ 4).
    rewrite Rabs_mult, (Rabs_pos_eq z) by lra. assert (Rabs (poly_float z) <= 1).
    { replace (poly_float z) with ((poly_float z - coth_poly z) + coth_poly z) by ring.
      eapply Rle_trans; [apply Rabs_triang|]. rewrite (Rabs_pos_eq (coth_poly z)) by lra. lra. }
    assert (0 <= Rabs (poly_float z)) by apply Rabs_pos. nra. }
  apply (rnd_abs_le _ 0); [easy|]. change (two 0) with 1. eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_Ropp. lra.
Qed.

(** If the library's expm1 does not overflow and has the sign of x, neither does k₃. *)
Theorem thm_accurate_kernel_no_overflow E x : float64 x -> Rabs x <= largest -> -1 <= E <= largest ->
  (0 <= x -> 0 <= E) -> (x <= 0 -> E <= 0) -> Rabs (k3_numpy E x) <= largest.
Proof.
  intros F X H P N. assert (L : 1 <= largest).
  { unfold largest. assert (1 <= two 971) by (apply (two_le 0 971); easy). assert (1 <= IZR (2 ^ 53 - 1)) by now apply IZR_le. nra. }
  rewrite thm_accurate_kernel_routes by easy. unfold k3_arrays. destruct (Rlt_dec (Rabs x) 1) as [S|S].
  - rewrite near_is. apply rnd_largest. rewrite Rabs_mult. assert (B := factor_float_size x ltac:(lra)).
    assert (Rabs E <= largest) by (apply Rabs_le; lra). assert (0 <= Rabs E) by apply Rabs_pos.
    assert (0 <= Rabs (factor_float (rnd (x * (1 / 2))))) by apply Rabs_pos. nra.
  - apply rnd_largest. apply Rabs_le. apply Rabs_le_inv in X. destruct (Rle_or_lt 0 x) as [Q|Q].
    + specialize (P Q). lra.
    + rewrite Rabs_left in S by easy. specialize (N ltac:(lra)). lra.
Qed.
