(** * The best coefficient of a control variate, for any two variables *)
From KL Require Export Means.

Section ControlVariate.
Context {A : Type} {X : list A}.
Implicit Types (q : law X) (Y Z : A -> R).

(** Z is the control variate; ρ² is the squared correlation of Y and Z. *)
Theorem thm_control_variate q Y Z : E q Z = 0 -> 0 < Var q Z ->
  let λopt := - Cov q Z Y / Var q Z in
  let ρ2 := Cov q Z Y ^ 2 / (Var q Z * Var q Y) in
  let V λ := Var[x ∼ q] (Y x + λ * Z x) in
  (forall λ, E[x ∼ q] (Y x + λ * Z x) = E q Y) /\
  (forall λ, V λ = V λopt + (λ - λopt) ^ 2 * Var q Z) /\
  (forall λ, λ <> λopt -> V λopt < V λ) /\
  (Var q Y <> 0 -> V λopt = (1 - ρ2) * Var q Y) /\
  (Var q Y = 0 -> V λopt = 0) /\
  (forall λ, V λ < Var q Y <-> 0 < λ < 2 * λopt \/ 2 * λopt < λ < 0).
Proof.
  intros H0 HZ λopt ρ2 V. set (v := Var q Z) in *. set (c := Cov q Z Y) in *.
  assert (CC : Cov q Y Z = c).
  { unfold c. rewrite !Cov_E. rewrite (E_ext q (fun x => Y x * Z x) (fun x => Z x * Y x)) by (intros; ring). ring. }
  assert (EV : forall λ, V λ = Var q Y + 2 * λ * c + λ ^ 2 * v).
  { intros λ. unfold V. rewrite (Var_plus_scal q Y Z λ), CC. reflexivity. }
  assert (EC : c = - λopt * v) by (unfold λopt; field; lra).
  assert (D : forall λ, V λ = V λopt + (λ - λopt) ^ 2 * v) by (intros; rewrite !EV, EC; ring).
  assert (M : V λopt = Var q Y - c ^ 2 / v) by (rewrite EV; unfold λopt; field; lra).
  split; [|split; [easy|split; [|split; [|split]]]].
  - intros λ. rewrite E_plus, E_scal, H0. ring.
  - intros λ N. rewrite (D λ). assert (0 < (λ - λopt) ^ 2 * v); [|lra].
    apply Rmult_lt_0_compat; trivial. nra.
  - intros N. rewrite M. unfold ρ2. field. split; lra.
  - intros Z0. assert (P : 0 <= V λopt) by apply Var_nonneg. rewrite M, Z0 in *.
    assert (0 <= c ^ 2 / v); [|lra].
    apply Rmult_le_pos; [apply pow2_ge_0|left; now apply Rinv_0_lt_compat].
  - intros λ.
    assert (F : V λ - Var q Y = λ * (λ - 2 * λopt) * v) by (rewrite EV, EC; ring).
    split.
    + intros L. assert (S : λ * (λ - 2 * λopt) < 0).
      { apply Rmult_lt_reg_r with v; trivial. lra. }
      destruct (Rtotal_order λ 0) as [N|[N|N]]; [right|subst; lra|left]; nra.
    + intros S. assert (λ * (λ - 2 * λopt) * v < 0 * v); [|lra].
      apply Rmult_lt_compat_r; trivial. nra.
Qed.
End ControlVariate.
