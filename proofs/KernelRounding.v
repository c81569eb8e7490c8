(** * Rounding in the accurate kernel, for 1/8 ≤ |x| ≤ 1 *)
From Coq Require Import Lia List.
From Flocq Require Import Core.
From Coquelicot Require Import Coquelicot.
From Interval Require Import Tactic.
From KL Require Export KernelSeries.
Import ListNotations.
Open Scope R_scope.

Ltac numbers := unfold coth0, coth1, coth2, coth3, coth4, coth5, coth6, two; simpl bpow; interval with (i_prec 60).

(** The computed polynomial, and the second factor of the product, as the package computes them. *)
Definition poly_float (z : R) : R :=
  rnd (rnd (rnd (rnd (rnd (rnd (rnd (rnd (rnd (rnd (rnd (rnd (z * coth6) + coth5) * z) + coth4) * z) + coth3) * z) + coth2) * z)
    + coth1) * z) + coth0).

Definition factor_float (h : R) : R := rnd (h - rnd (poly_float (rnd (h * h)) * rnd (h * h))).

Lemma near_is E x : k3_near E x = rnd (factor_float (rnd (x * (1 / 2))) * E).
Proof. reflexivity. Qed.

(** One step of Horner's rule: a rounded product and a rounded sum. *)
Lemma horner_step v a c z ε m1 m2 : 0 <= z <= 1 / 4 -> (-1021 <= m1)%Z -> (-1021 <= m2)%Z ->
  Rabs (v - a) <= ε -> (Rabs a + ε) / 4 <= two m1 -> Rabs (c + z * a) + (ε / 4 + two (m1 - 54)) <= two m2 ->
  Rabs (rnd (rnd (v * z) + c) - (c + z * a)) <= ε / 4 + two (m1 - 54) + two (m2 - 54).
Proof.
  intros Z M1 M2 V A B.
  assert (V' : Rabs v <= Rabs a + ε).
  { replace v with (a + (v - a)) by ring. eapply Rle_trans; [apply Rabs_triang|]. lra. }
  assert (P : Rabs (v * z) <= two m1).
  { rewrite Rabs_mult, (Rabs_pos_eq z) by lra. assert (0 <= Rabs v) by apply Rabs_pos. nra. }
  assert (E1 := rnd_error_below (v * z) m1 M1 P).
  assert (E2 : Rabs (rnd (v * z) + c - (c + z * a)) <= ε / 4 + two (m1 - 54)).
  { replace (rnd (v * z) + c - (c + z * a)) with ((rnd (v * z) - v * z) + (v - a) * z) by ring.
    eapply Rle_trans; [apply Rabs_triang|]. rewrite (Rabs_mult (v - a)), (Rabs_pos_eq z) by lra.
    assert (0 <= Rabs (v - a)) by apply Rabs_pos. nra. }
  assert (Q : Rabs (rnd (v * z) + c) <= two m2).
  { replace (rnd (v * z) + c) with ((c + z * a) + (rnd (v * z) + c - (c + z * a))) by ring.
    eapply Rle_trans; [apply Rabs_triang|]. lra. }
  assert (E3 := rnd_error_below _ m2 M2 Q).
  replace (rnd (rnd (v * z) + c) - (c + z * a)) with
    ((rnd (rnd (v * z) + c) - (rnd (v * z) + c)) + (rnd (v * z) + c - (c + z * a))) by ring.
  eapply Rle_trans; [apply Rabs_triang|]. lra.
Qed.

(** The polynomial is computed to 2^-55 and some percent. *)
Lemma poly_float_error z : 0 <= z <= 1 / 4 -> Rabs (poly_float z - coth_poly z) <= 1.04 * / 2 ^ 55.
Proof.
  intros H. unfold poly_float, coth_poly.
  assert (E6 : Rabs (rnd (z * coth6) - z * coth6) <= two (-78)).
  { apply (rnd_error_below _ (-24)); [easy|]. numbers. }
  assert (E5 : Rabs (rnd (rnd (z * coth6) + coth5) - (coth5 + z * coth6)) <= two (-78) + two (-72)).
  { replace (rnd (rnd (z * coth6) + coth5) - (coth5 + z * coth6)) with
      ((rnd (rnd (z * coth6) + coth5) - (rnd (z * coth6) + coth5)) + (rnd (z * coth6) - z * coth6)) by ring.
    eapply Rle_trans; [apply Rabs_triang|]. rewrite Rplus_comm. apply Rplus_le_compat; [easy|].
    apply (rnd_error_below _ (-18)); [easy|]. revert E6. generalize (rnd (z * coth6)). intros v Hv.
    replace (v + coth5) with ((v - z * coth6) + (coth5 + z * coth6)) by ring.
    eapply Rle_trans; [apply Rabs_triang|]. eapply Rle_trans; [apply Rplus_le_compat_r, Hv|].
    numbers. }
  assert (E4 := horner_step _ _ coth4 z _ (-20) (-15) H ltac:(easy) ltac:(easy) E5 ltac:(numbers) ltac:(numbers)).
  assert (E3 := horner_step _ _ coth3 z _ (-17) (-12) H ltac:(easy) ltac:(easy) E4 ltac:(numbers) ltac:(numbers)).
  assert (E2 := horner_step _ _ coth2 z _ (-14) (-8) H ltac:(easy) ltac:(easy) E3 ltac:(numbers) ltac:(numbers)).
  assert (E1 := horner_step _ _ coth1 z _ (-10) (-5) H ltac:(easy) ltac:(easy) E2 ltac:(numbers) ltac:(numbers)).
  assert (E0 := horner_step _ _ coth0 z _ (-7) (-1) H ltac:(easy) ltac:(easy) E1 ltac:(numbers) ltac:(numbers)).
  eapply Rle_trans; [exact E0|]. numbers.
Qed.

(** On [0, 1/4] the polynomial is near 1/3, and z ↦ z P(z) has a slope of at most 1/3. *)
Lemma coth_poly_values z : 0 <= z <= 1 / 4 -> 0.32 <= coth_poly z <= 1 / 3.
Proof. intros H. unfold coth_poly. numbers. Qed.

Lemma coth_poly_slope a b : 0 <= a <= 1 / 4 -> 0 <= b <= 1 / 4 ->
  Rabs (a * coth_poly a - b * coth_poly b) <= 0.334 * Rabs (a - b).
Proof.
  intros A B.
  assert (E : a * coth_poly a - b * coth_poly b = (a - b) * (coth0 + (a + b) * coth1 + (a ^ 2 + a * b + b ^ 2) * coth2
    + (a + b) * (a ^ 2 + b ^ 2) * coth3 + (a ^ 4 + a ^ 3 * b + a ^ 2 * b ^ 2 + a * b ^ 3 + b ^ 4) * coth4
    + (a + b) * (a ^ 4 + a ^ 2 * b ^ 2 + b ^ 4) * coth5
    + (a ^ 6 + a ^ 5 * b + a ^ 4 * b ^ 2 + a ^ 3 * b ^ 3 + a ^ 2 * b ^ 4 + a * b ^ 5 + b ^ 6) * coth6)).
  { unfold coth_poly. ring. }
  rewrite E, Rabs_mult, Rmult_comm. apply Rmult_le_compat_r; [apply Rabs_pos|]. numbers.
Qed.

(** What z P(z), the second summand of the factor, loses by rounding: ε1 is for the square, ε2 for the product. *)
Lemma product_float_error Z ε1 ε2 : 0 <= Z <= 1 / 4 -> Rabs (rnd Z - Z) <= ε1 ->
  (forall a, Rabs a <= 0.3334 * (Z + ε1) -> Rabs (rnd a - a) <= ε2) ->
  Rabs (rnd (poly_float (rnd Z) * rnd Z) - Z * coth_poly Z) <= ε2 + 1.04 * / 2 ^ 55 * (Z + ε1) + 0.334 * ε1.
Proof.
  intros H E1 R2.
  assert (Q : 0 <= rnd Z <= 1 / 4).
  { split; [now apply rnd_nonneg|]. replace (1 / 4) with (two (-2)) by (change (two (-2)) with (/ 4); lra).
    apply (Rle_trans _ _ _ (Rle_abs _)), rnd_abs_le; [easy|]. rewrite Rabs_pos_eq by lra. change (two (-2)) with (/ 4). lra. }
  set (z := rnd Z) in *. assert (E2 := poly_float_error z Q). assert (P := coth_poly_values z Q).
  assert (E4 := coth_poly_slope z Z Q H).
  assert (Lz : z <= Z + ε1) by (apply Rabs_le_between in E1; lra).
  assert (E3 : Rabs (rnd (poly_float z * z) - poly_float z * z) <= ε2).
  { apply R2. rewrite Rabs_mult, (Rabs_pos_eq z) by lra.
    assert (Rabs (poly_float z) <= 0.3334).
    { replace (poly_float z) with ((poly_float z - coth_poly z) + coth_poly z) by ring.
      eapply Rle_trans; [apply Rabs_triang|]. rewrite (Rabs_pos_eq (coth_poly z)) by lra. lra. }
    assert (0 <= Rabs (poly_float z)) by apply Rabs_pos. nra. }
  replace (rnd (poly_float z * z) - Z * coth_poly Z) with
    ((rnd (poly_float z * z) - poly_float z * z) + ((poly_float z - coth_poly z) * z + (z * coth_poly z - Z * coth_poly Z))) by ring.
  eapply Rle_trans; [apply Rabs_triang|]. rewrite Rplus_assoc. apply Rplus_le_compat; [easy|].
  eapply Rle_trans; [apply Rabs_triang|]. apply Rplus_le_compat.
  - rewrite Rabs_mult, (Rabs_pos_eq z) by lra. apply Rmult_le_compat; try lra. apply Rabs_pos.
  - eapply Rle_trans; [exact E4|]. lra.
Qed.

(** ** The second factor and the product *)

Definition factor (x : R) : R := x / 2 - (x / 2) ^ 2 * coth_poly ((x / 2) ^ 2).

Lemma missed_is x : missed x = (exp x - 1) * factor x - k3_exp x.
Proof. reflexivity. Qed.

(** What is lost before the last rounding, if the factor is s instead: the library's error, that of s, the polynomial's. *)
Lemma before_last E x s U d m : Rabs (E - (exp x - 1)) <= U -> Rabs (s - factor x) <= d -> Rabs (missed x) <= m ->
  Rabs (s * E - k3_exp x) <= U * (Rabs (factor x) + d) + Rabs (exp x - 1) * d + m.
Proof.
  intros HU Hd Hm. replace (s * E - k3_exp x) with
    ((E - (exp x - 1)) * s + ((exp x - 1) * (s - factor x) + missed x)) by (rewrite missed_is; ring).
  eapply Rle_trans; [apply Rabs_triang|]. rewrite Rplus_assoc. apply Rplus_le_compat.
  - rewrite Rabs_mult. apply Rmult_le_compat; try apply Rabs_pos; trivial.
    replace s with (factor x + (s - factor x)) by ring. eapply Rle_trans; [apply Rabs_triang|]. lra.
  - eapply Rle_trans; [apply Rabs_triang|]. apply Rplus_le_compat; trivial.
    rewrite Rabs_mult. apply Rmult_le_compat_l; trivial. apply Rabs_pos.
Qed.

Lemma square_range x : Rabs x <= 1 -> 0 <= (x / 2) ^ 2 <= 1 / 4.
Proof. intros H. apply Rabs_le_between in H. split; [apply pow2_ge_0|]. nra. Qed.

Lemma half_exact x : float64 x -> two (-1021) <= Rabs x -> rnd (x * (1 / 2)) = x / 2.
Proof. intros F H. replace (x * (1 / 2)) with (x / 2) by field. now apply rnd_exact, float64_half. Qed.

(** The factor is off by what its last rounding and the product before it lose. *)
Lemma factor_error x ε1 ε2 ε3 : Rabs x <= 1 -> Rabs (rnd ((x / 2) ^ 2) - (x / 2) ^ 2) <= ε1 ->
  (forall a, Rabs a <= 0.3334 * ((x / 2) ^ 2 + ε1) -> Rabs (rnd a - a) <= ε2) ->
  let w := ε2 + 1.04 * / 2 ^ 55 * ((x / 2) ^ 2 + ε1) + 0.334 * ε1 in
  (forall a, Rabs a <= Rabs (factor x) + w -> Rabs (rnd a - a) <= ε3) ->
  Rabs (factor_float (x / 2) - factor x) <= ε3 + w.
Proof.
  intros H R1 R2 w R3. assert (E := product_float_error _ ε1 ε2 (square_range x H) R1 R2). fold w in E.
  unfold factor_float. replace (x / 2 * (x / 2)) with ((x / 2) ^ 2) by ring.
  set (p := rnd (poly_float (rnd ((x / 2) ^ 2)) * rnd ((x / 2) ^ 2))) in *.
  assert (D : Rabs (x / 2 - p - factor x) <= w).
  { unfold factor. rewrite Rabs_minus_sym.
    replace (x / 2 - (x / 2) ^ 2 * coth_poly ((x / 2) ^ 2) - (x / 2 - p)) with (p - (x / 2) ^ 2 * coth_poly ((x / 2) ^ 2)) by ring. easy. }
  assert (B : Rabs (rnd (x / 2 - p) - (x / 2 - p)) <= ε3).
  { apply R3. replace (x / 2 - p) with (factor x + (x / 2 - p - factor x)) by ring.
    eapply Rle_trans; [apply Rabs_triang|]. lra. }
  replace (rnd (x / 2 - p) - factor x) with ((rnd (x / 2 - p) - (x / 2 - p)) + (x / 2 - p - factor x)) by ring.
  eapply Rle_trans; [apply Rabs_triang|]. lra.
Qed.

(** What the product before it loses if z ≤ 2^mz and z P(z) ≤ 2^mw. *)
Definition product_error (mz mw : Z) (Z : R) : R :=
  two (mw - 54) + 1.04 * / 2 ^ 55 * (Z + two (mz - 54)) + 0.334 * two (mz - 54).

(** One piece of the range: exponents of e^x - 1, the factor, the result, z, and z P(z), and what the polynomial misses. *)
Lemma near_piece E x k (p q r mz mw : Z) δ : float64 x -> 5 / 8 <= k ->
  Rabs (E - (exp x - 1)) <= k * ulp64 (exp x - 1) ->
  two (-1021) <= Rabs x -> Rabs x <= 1 -> (-1021 <= p)%Z -> (-1021 <= q)%Z -> (-1021 <= mz)%Z -> (-1021 <= mw)%Z ->
  Rabs (missed x) <= δ * ((x / 2) ^ 2 * Rabs (exp x - 1)) ->
  Rabs (exp x - 1) < two p -> two r <= Rabs (k3_exp x) ->
  (x / 2) ^ 2 <= two mz -> 0.3334 * ((x / 2) ^ 2 + two (mz - 54)) <= two mw ->
  Rabs (factor x) + product_error mz mw ((x / 2) ^ 2) <= two q ->
  two (p - 53) * (Rabs (factor x) + (two (q - 54) + product_error mz mw ((x / 2) ^ 2))) <= 4 * two (r - 52) ->
  5 / 8 * two (p - 53) * (Rabs (factor x) + (two (q - 54) + product_error mz mw ((x / 2) ^ 2))) +
    Rabs (exp x - 1) * (two (q - 54) + product_error mz mw ((x / 2) ^ 2) + δ * (x / 2) ^ 2) <= 5 / 2 * two (r - 52) ->
  Rabs (factor_float (rnd (x * (1 / 2))) * E - k3_exp x) <= 4 * k * ulp64 (k3_exp x).
Proof.
  intros F K HE L H Hp Hq Hz Hw M Bp Br Bz Bw Bq H1 H2. rewrite half_exact by easy.
  assert (D : Rabs (factor_float (x / 2) - factor x) <= two (q - 54) + product_error mz mw ((x / 2) ^ 2)).
  { apply factor_error; trivial; intros; apply rnd_error_below; trivial.
    - rewrite Rabs_pos_eq by apply pow2_ge_0. easy.
    - eapply Rle_trans; [eassumption|exact Bw].
    - eapply Rle_trans; [eassumption|exact Bq]. }
  eapply Rle_trans; [apply (before_last E x _ _ _ _ HE D M)|].
  assert (U := ulp64_below _ p Hp Bp). assert (V := ulp64_from _ r Br).
  set (d := two (q - 54) + _) in *. set (f := Rabs (factor x)) in *. set (e := Rabs (exp x - 1)) in *.
  assert (0 <= f + d). { assert (0 <= f) by apply Rabs_pos. assert (0 <= d); [|lra]. eapply Rle_trans; [apply Rabs_pos|exact D]. }
  assert (k * ulp64 (exp x - 1) * (f + d) <= k * (two (p - 53) * (f + d))).
  { rewrite Rmult_assoc. apply Rmult_le_compat_l; [lra|]. now apply Rmult_le_compat_r. }
  assert ((k - 5 / 8) * (two (p - 53) * (f + d)) <= (k - 5 / 8) * (4 * two (r - 52))) by (apply Rmult_le_compat_l; lra).
  assert (4 * k * two (r - 52) <= 4 * k * ulp64 (k3_exp x)) by (apply Rmult_le_compat_l; lra).
  lra.
Qed.

(** ** The pieces from 1/8 to 1, of both signs *)

Ltac numbers_of x := unfold product_error, factor, k3_exp, coth_poly, coth0, coth1, coth2, coth3, coth4, coth5, coth6, two;
  simpl Z.sub; simpl bpow; interval with (i_bisect x, i_prec 60).

Ltac piece x exponents d M :=
  match exponents with [?p; ?q; ?r; ?mz; ?mw] => apply (near_piece _ _ _ p q r mz mw (d / IZR (10 ^ 18))) end; trivial;
  [ apply Rle_trans with (two (-3)); [apply two_le; easy|change (two (-3)) with (/ 8); rewrite ?Rabs_pos_eq, ?Rabs_left by lra; lra]
  | apply Rabs_le; lra | easy | easy | easy | easy | apply M; lra | .. ]; numbers_of x.

Lemma missed_right x : 0.815 <= x <= 0.858 -> Rabs (missed x) <= 90 / IZR (10 ^ 18) * ((x / 2) ^ 2 * Rabs (exp x - 1)).
Proof. intros H. bound_missed; interval with (i_bisect x, i_taylor x, i_degree 10, i_prec 100). Qed.

Lemma missed_left x : -0.838 <= x <= -0.793 -> Rabs (missed x) <= 125 / IZR (10 ^ 18) * ((x / 2) ^ 2 * Rabs (exp x - 1)).
Proof. intros H. bound_missed; interval with (i_bisect x, i_taylor x, i_degree 10, i_prec 100). Qed.

Section Near.
Variables E x k : R.
Hypotheses (F : float64 x) (K : 5 / 8 <= k) (HE : Rabs (E - (exp x - 1)) <= k * ulp64 (exp x - 1)).
Let good := Rabs (factor_float (rnd (x * (1 / 2))) * E - k3_exp x) <= 4 * k * ulp64 (k3_exp x).

Lemma near_right : 1 / 8 <= x <= 1 -> good.
Proof.
  intros H. unfold good.
  destruct (Rle_or_lt x 0.217); [piece x [-2; -3; -7; -6; -7]%Z 174 missed_all|].
  destruct (Rle_or_lt x 0.261); [piece x [-1; -3; -6; -5; -7]%Z 174 missed_all|].
  destruct (Rle_or_lt x 0.382); [piece x [-1; -2; -5; -4; -6]%Z 174 missed_all|].
  destruct (Rle_or_lt x 0.492); [piece x [0; -2; -4; -4; -5]%Z 174 missed_all|].
  destruct (Rle_or_lt x 0.638); [piece x [0; -1; -3; -3; -4]%Z 174 missed_all|].
  destruct (Rle_or_lt x 0.815); [piece x [1; -1; -2; -2; -4]%Z 174 missed_all|].
  destruct (Rle_or_lt x 0.858); [piece x [1; -1; -2; -2; -4]%Z 90 missed_right|].
  piece x [1; -1; -1; -1; -3]%Z 174 missed_all.
Qed.

Lemma near_left : -1 <= x <= -1 / 8 -> good.
Proof.
  intros H. unfold good.
  destruct (Rle_or_lt (-0.133) x); [piece x [-3; -3; -8; -7; -9]%Z 174 missed_all|].
  destruct (Rle_or_lt (-0.233) x); [piece x [-2; -3; -7; -6; -7]%Z 174 missed_all|].
  destruct (Rle_or_lt (-0.287) x); [piece x [-2; -2; -6; -5; -7]%Z 174 missed_all|].
  destruct (Rle_or_lt (-0.43) x); [piece x [-1; -2; -5; -4; -6]%Z 174 missed_all|].
  destruct (Rle_or_lt (-0.601) x); [piece x [-1; -1; -4; -3; -5]%Z 174 missed_all|].
  destruct (Rle_or_lt (-0.793) x); [piece x [0; -1; -3; -2; -4]%Z 174 missed_all|].
  destruct (Rle_or_lt (-0.838) x); [piece x [0; -1; -3; -2; -4]%Z 125 missed_left|].
  piece x [0; 0; -2; -1; -3]%Z 174 missed_all.
Qed.
End Near.
