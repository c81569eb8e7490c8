(** * Whole vocabularies: what a set of tokens sees of the divergence, and its unbiased completion *)
From Coq Require Import Bool.
From KL Require Export Estimators.

Section SetOfTokens.
Context {A : Type} {X : list A}.
Variables (q p : law X) (a : A -> bool).
Hypotheses (q_full : full_support q) (p_full : full_support p).

(** The set, its complement, and their masses. *)
Let out (x : A) : bool := negb (a x).
Let qA : R := mass_of q a.
Let pA : R := mass_of p a.
Let qO : R := mass_of q out.
Let pO : R := mass_of p out.
Hypotheses (qA_pos : 0 < qA) (qO_pos : 0 < qO).

Let k (x : A) : R := k3 (p x / q x).
Let inside (x : A) : R := if a x then 1 else 0.
Let outside (x : A) : R := if a x then 0 else 1.

(** Σ q ln (q/p) over a set, Σ q k₃ over the set, and KL with the other tokens in one bucket. *)
Definition part (b : A -> bool) : R := E[x ∼ q] ((if b x then 1 else 0) * - ln (p x / q x)).
Definition S_A : R := E[x ∼ q] (inside x * k x).
Definition K_A : R := part a + qO * ln (qO / pO).

Lemma masses (l : law X) : mass_of l a + mass_of l out = 1.
Proof.
  unfold mass_of. rewrite <- E_plus. transitivity (E l (fun _ => 1)); [|apply E_const]. apply E_ext; intros. unfold out. destruct (a x); simpl; ring.
Qed.

Lemma mass_positive (b : A -> bool) : 0 < mass_of q b -> 0 < mass_of p b.
Proof.
  intros H. assert (0 <= mass_of p b) as [|Z] by (apply E_nonneg; intros; destruct (b x); lra); [easy|exfalso].
  symmetry in Z. assert (N : mass_of q b = 0); [|lra].
  transitivity (E q (fun _ => 0)); [|apply E_const]. apply E_ext; intros x Hx _.
  exact (E_nonneg_zero p (fun x => if b x then 1 else 0) (fun y _ _ => ltac:(cbv beta; destruct (b y); lra)) Z x Hx (p_full x Hx)).
Qed.

Lemma pA_pos : 0 < pA. Proof. now apply mass_positive. Qed.
Lemma pO_pos : 0 < pO. Proof. now apply mass_positive. Qed.

Lemma part_whole : part a + part out = KL q p.
Proof.
  unfold part. rewrite <- E_plus. apply E_ext; intros. unfold out. destruct (a x); simpl; ring.
Qed.

(** A part is the divergence of the conditional laws, weighted, and that of the masses. *)
Lemma part_conditional (b : A -> bool) (qc pc : law X) : 0 < mass_of q b ->
  (forall x, x ∈ X -> qc x = if b x then q x / mass_of q b else 0) ->
  (forall x, x ∈ X -> pc x = if b x then p x / mass_of p b else 0) ->
  part b = mass_of q b * ln (mass_of q b / mass_of p b) + mass_of q b * KL qc pc.
Proof.
  intros H Hq Hp. assert (H' := mass_positive b H). set (mq := mass_of q b) in *. set (mp := mass_of p b) in *.
  assert (C : mq * KL qc pc = part b + E[x ∼ q] (- ln (mq / mp) * (if b x then 1 else 0))).
  { unfold part. rewrite <- E_plus. unfold KL. rewrite <- E_scal. apply sum_ext; intros x Hx.
    assert (Q := q_full x Hx). assert (P := p_full x Hx). rewrite (Hq x Hx), (Hp x Hx). destruct (b x); [|ring].
    rewrite !ln_div by (trivial; now apply Rdiv_lt_0_compat). field. lra. }
  rewrite C, E_scal. fold (mass_of q b). fold mq. ring.
Qed.

Let ρ : R := pO / qO.

(** 1. The first gap. *)
Theorem thm_topk_chain_first_gap : K_A - S_A = qO * k3 ρ /\ (K_A - S_A = 0 <-> pA = qA).
Proof.
  assert (P := pO_pos). assert (Mq := masses q). assert (Mp := masses p). fold qA qO in Mq. fold pA pO in Mp.
  assert (G : K_A - S_A = qO * k3 ρ).
  { assert (S : S_A = part a + (pA - qA)).
    { unfold S_A, part, pA, qA, mass_of. 
      replace (E[x ∼ p] (if a x then 1 else 0)) with (E[x ∼ q] ((if a x then 1 else 0) * (p x / q x))).
      - rewrite <- E_minus, <- E_plus. apply E_ext; intros x Hx Q. unfold inside, k, k3. destruct (a x); ring.
      - rewrite <- (change_of_measure q p (fun x => if a x then 1 else 0)) by now apply full_covered.
        apply E_ext; intros; ring. }
    unfold K_A. rewrite S. unfold k3, ρ. rewrite !ln_div by trivial.
    replace (pA - qA) with (qO - pO) by lra. field. lra. }
  split; [easy|]. rewrite G. assert (R0 : 0 < ρ) by (now apply Rdiv_lt_0_compat). split.
  - intros Z. apply Rmult_integral in Z as [Z|Z]; [lra|]. apply k3_zero in Z; trivial.
    assert (pO = qO); [|lra]. replace pO with (ρ * qO) by (unfold ρ; field; lra). rewrite Z; ring.
  - intros S. assert (E0 : pO = qO) by lra. unfold ρ. rewrite E0. replace (qO / qO) with 1 by (field; lra).
    replace (k3 1) with 0; [ring|]. unfold k3. rewrite ln_1. ring.
Qed.

(** 2. The second gap, with the laws conditioned on the other tokens; 4. what the set sees. *)
Theorem thm_topk_chain_second_gap (qc pc : law X) :
  (forall x, x ∈ X -> qc x = if out x then q x / qO else 0) ->
  (forall x, x ∈ X -> pc x = if out x then p x / pO else 0) ->
  KL q p - K_A = qO * KL qc pc /\ 0 <= KL q p - K_A.
Proof.
  intros Hq Hp. assert (C := part_conditional out qc pc qO_pos Hq Hp). fold qO pO in C.
  assert (G : KL q p - K_A = qO * KL qc pc) by (rewrite <- part_whole; unfold K_A; rewrite C; ring).
  split; [easy|]. rewrite G. apply Rmult_le_pos; [lra|]. apply KL_nonneg. intros x Hx Z. rewrite (Hp x Hx) in Z.
  rewrite (Hq x Hx). destruct (out x); [|easy]. exfalso. assert (P := pO_pos).
  assert (0 < p x / pO) by (apply Rdiv_lt_0_compat; auto). lra.
Qed.

Theorem thm_topk_chain_inside (qc pc : law X) :
  (forall x, x ∈ X -> qc x = if a x then q x / qA else 0) ->
  (forall x, x ∈ X -> pc x = if a x then p x / pA else 0) ->
  K_A = qA * ln (qA / pA) + qO * ln (qO / pO) + qA * KL qc pc.
Proof.
  intros Hq Hp. assert (C := part_conditional a qc pc qA_pos Hq Hp). fold qA pA in C. unfold K_A. rewrite C. ring.
Qed.

(** ** The unbiased completion *)

Definition Z_ (c : R) (x : A) : R := S_A + outside x * k x - c * (outside x - qO).
(** Means and variances of k₃ given that the token is in the set, and that it is not. *)
Let mA : R := S_A / qA.
Let m : R := (E[x ∼ q] (outside x * k x)) / qO.
Let vA : R := (E[x ∼ q] (inside x * (k x - mA) ^ 2)) / qA.
Let v : R := (E[x ∼ q] (outside x * (k x - m) ^ 2)) / qO.

Lemma k_nonneg x : x ∈ X -> 0 <= k x.
Proof. intros Hx. apply k3_nonneg, Rdiv_lt_0_compat; auto. Qed.

Lemma mean_k : E q k = KL q p.
Proof.
  transitivity (E[x ∼ q] k3 (p x / q x)); [easy|].
  rewrite (E_ext q _ (fun x => Divergences.k 1 (p x / q x))) by (intros; apply k3_k).
  apply prop_mean_of_k3_unbiased; now apply full_covered.
Qed.

Lemma E_inside : E q inside = qA. Proof. reflexivity. Qed.
Lemma E_outside : E q outside = qO.
Proof. apply E_ext; intros. unfold outside, out. now destruct (a x). Qed.
Lemma E_inside_k : E[x ∼ q] (inside x * k x) = qA * mA.
Proof. unfold mA, S_A. field. lra. Qed.
Lemma E_outside_k : E[x ∼ q] (outside x * k x) = qO * m.
Proof. unfold m. field. lra. Qed.

Lemma E_inside_k2 : E[x ∼ q] (inside x * k x ^ 2) = qA * (vA + mA ^ 2).
Proof.
  assert (V : qA * vA = E[x ∼ q] (inside x * k x ^ 2) + (-2 * mA * (qA * mA) + mA ^ 2 * qA)).
  { transitivity (E[x ∼ q] (inside x * (k x - mA) ^ 2)); [unfold vA; field; lra|].
    transitivity (E[x ∼ q] (inside x * k x ^ 2 + (-2 * mA * (inside x * k x) + mA ^ 2 * inside x))); [apply E_ext; intros; ring|].
    rewrite !E_plus, (E_scal q (-2 * mA)), (E_scal q (mA ^ 2) inside), E_inside_k, E_inside. ring. }
  lra.
Qed.

Lemma E_outside_k2 : E[x ∼ q] (outside x * k x ^ 2) = qO * (v + m ^ 2).
Proof.
  assert (V : qO * v = E[x ∼ q] (outside x * k x ^ 2) + (-2 * m * (qO * m) + m ^ 2 * qO)).
  { transitivity (E[x ∼ q] (outside x * (k x - m) ^ 2)); [unfold v; field; lra|].
    transitivity (E[x ∼ q] (outside x * k x ^ 2 + (-2 * m * (outside x * k x) + m ^ 2 * outside x))); [apply E_ext; intros; ring|].
    rewrite !E_plus, (E_scal q (-2 * m)), (E_scal q (m ^ 2) outside), E_outside_k, E_outside. ring. }
  lra.
Qed.

Lemma KL_parts : KL q p = qA * mA + qO * m.
Proof.
  rewrite <- mean_k, <- E_inside_k, <- E_outside_k, <- E_plus. apply E_ext; intros. unfold inside, outside. destruct (a x); ring.
Qed.

(** 1 *)
Theorem thm_topk_completion c : E q (Z_ c) = KL q p.
Proof.
  transitivity (E[x ∼ q] (S_A + (outside x * k x + - c * outside x) + c * qO)).
  - apply E_ext; intros. unfold Z_. ring.
  - rewrite !E_plus, !E_const, E_scal, E_outside_k, E_outside, KL_parts, <- E_inside_k. unfold S_A. ring.
Qed.

(** 2 *)
Theorem thm_topk_completion_variance c : Var q (Z_ c) = qO * v + qA * qO * (c - m) ^ 2.
Proof.
  unfold Var. rewrite Cov_E, thm_topk_completion, KL_parts.
  assert (M := masses q). fold qA qO in M.
  set (s := S_A + c * qO). assert (Es : S_A = qA * mA) by (rewrite <- E_inside_k; easy).
  transitivity (E[x ∼ q] (s ^ 2 + (2 * s * (outside x * k x) + (- 2 * s * c * outside x + (outside x * k x ^ 2
    + (-2 * c * (outside x * k x) + c ^ 2 * outside x))))) - (qA * mA + qO * m) * (qA * mA + qO * m)).
  - f_equal. apply E_ext; intros. unfold Z_, s, outside. destruct (a x); ring.
  - rewrite !E_plus, E_const, !E_scal, E_outside_k, E_outside_k2, E_outside. unfold s. rewrite Es.
    replace qA with (1 - qO) by lra. ring.
Qed.

Lemma v_nonneg : 0 <= v /\ 0 <= vA.
Proof.
  split; apply Rmult_le_pos; try (left; apply Rinv_0_lt_compat; lra); apply E_nonneg; intros;
    (apply Rmult_le_pos; [unfold inside, outside; destruct (a x); lra|apply pow2_ge_0]).
Qed.

Theorem thm_topk_completion_best c : Var q (Z_ m) <= Var q (Z_ c) /\ (Var q (Z_ c) = Var q (Z_ m) <-> c = m) /\
  m = (KL q p - S_A) / qO /\ 0 <= m.
Proof.
  rewrite !thm_topk_completion_variance. assert (P : 0 < qA * qO) by (now apply Rmult_lt_0_compat).
  assert (N : 0 <= qA * qO * (c - m) ^ 2) by (apply Rmult_le_pos; [lra|apply pow2_ge_0]).
  split; [lra|split; [split|split]].
  - intros S. assert (Z : qA * qO * (c - m) ^ 2 = 0) by lra. apply Rmult_integral in Z as [Z|Z]; [lra|nra].
  - intros ->. ring.
  - rewrite KL_parts. assert (Es : S_A = qA * mA) by (rewrite <- E_inside_k; easy). rewrite Es. field. lra.
  - apply Rmult_le_pos; [|left; now apply Rinv_0_lt_compat]. apply E_nonneg; intros x Hx _.
    apply Rmult_le_pos; [unfold outside; destruct (a x); lra|now apply k_nonneg].
Qed.

(** 3 *)
Theorem thm_topk_completion_conditional x :
  Z_ mA x = (if a x then mA else k x) /\ Var q k - Var q (Z_ mA) = qA * vA /\ 0 <= qA * vA.
Proof.
  assert (M := masses q). fold qA qO in M. assert (Es : S_A = qA * mA) by (rewrite <- E_inside_k; easy).
  split; [|split].
  - unfold Z_, outside. rewrite Es. replace qO with (1 - qA) by lra. destruct (a x); ring.
  - rewrite thm_topk_completion_variance. unfold Var. rewrite Cov_E, mean_k, KL_parts.
    replace (E[x ∼ q] (k x * k x)) with (E[x ∼ q] (inside x * k x ^ 2) + E[x ∼ q] (outside x * k x ^ 2)).
    + rewrite E_inside_k2, E_outside_k2. replace qO with (1 - qA) by lra. ring.
    + rewrite <- E_plus. apply E_ext; intros. unfold inside, outside. destruct (a x0); ring.
  - apply Rmult_le_pos; [lra|apply v_nonneg].
Qed.

(** 4 *)
Theorem thm_topk_completion_compared : Var q (Z_ 0) <= Var q (Z_ mA) <-> mA >= 2 * m \/ mA = 0.
Proof.
  rewrite !thm_topk_completion_variance. assert (P : 0 < qA * qO) by (now apply Rmult_lt_0_compat).
  assert (N : 0 <= mA).
  { apply Rmult_le_pos; [|left; now apply Rinv_0_lt_compat]. apply E_nonneg; intros x Hx _.
    apply Rmult_le_pos; [unfold inside; destruct (a x); lra|now apply k_nonneg]. }
  split.
  - intros H. assert (S : qA * qO * ((0 - m) ^ 2) <= qA * qO * ((mA - m) ^ 2)) by lra.
    apply Rmult_le_reg_l in S; trivial. destruct N as [N|N]; [left|now right]. nra.
  - intros H. apply Rplus_le_compat_l, Rmult_le_compat_l; [lra|]. destruct H; nra.
Qed.

(** 5 *)
Theorem thm_topk_completion_nonneg c x : x ∈ X -> 0 <= c <= mA -> 0 <= Z_ c x.
Proof.
  intros Hx Hc. assert (M := masses q). fold qA qO in M. assert (K := k_nonneg x Hx).
  assert (Es : S_A = qA * mA) by (rewrite <- E_inside_k; easy).
  assert (N1 : 0 <= c * qO) by (apply Rmult_le_pos; lra). assert (N2 : 0 <= (mA - c) * qA) by (apply Rmult_le_pos; lra).
  assert (N3 : 0 <= mA * qA) by (apply Rmult_le_pos; lra).
  unfold Z_, outside. rewrite Es. replace qO with (1 - qA) in * by lra. destruct (a x); lra.
Qed.
End SetOfTokens.

(** ** Growing sets *)
Section Growing.
Context {A : Type} {X : list A}.
Variables (q p : law X) (a b : A -> bool).
Hypotheses (q_full : full_support q) (p_full : full_support p) (subset : forall x, x ∈ X -> a x = true -> b x = true).

Let more (x : A) : bool := b x && negb (a x).
Let rest (c : A -> bool) (l : law X) : R := mass_of l (fun x => negb (c x)).

Lemma mass_sum (l : law X) (c : A -> bool) : mass_of l c = ∑ x ∈ X, if c x then l x else 0.
Proof. apply sum_ext; intros. destruct (c x); ring. Qed.

Lemma rest_more (l : law X) : rest a l = mass_of l more + rest b l.
Proof.
  unfold rest, mass_of. rewrite <- E_plus. apply E_ext; intros x Hx _. unfold more. assert (S := subset x Hx).
  destruct (a x), (b x); simpl; try ring. discriminate (S eq_refl).
Qed.

Lemma mass_nonneg_of (l : law X) (c : A -> bool) : 0 <= mass_of l c.
Proof. apply E_nonneg; intros; destruct (c x); lra. Qed.

Lemma mass_zero_of (c : A -> bool) : mass_of p c = 0 -> mass_of q c = 0.
Proof.
  intros Z. transitivity (E q (fun _ => 0)); [|apply E_const]. apply E_ext; intros x Hx _.
  exact (E_nonneg_zero p (fun x => if c x then 1 else 0) (fun y _ _ => ltac:(cbv beta; destruct (c y); lra)) Z x Hx (p_full x Hx)).
Qed.

(** 3. Both sums grow with the set. *)
Theorem thm_topk_chain_growing : S_A q p a <= S_A q p b /\ K_A q p a <= K_A q p b.
Proof.
  split.
  - apply E_le; intros x Hx _. assert (S := subset x Hx).
    assert (P : 0 <= k3 (p x / q x)) by (apply k3_nonneg, Rdiv_lt_0_compat; auto).
    destruct (a x), (b x); lra.
  - assert (D : part q p b = part q p a + part q p more).
    { unfold part. rewrite <- E_plus. apply E_ext; intros x Hx _. unfold more. assert (S := subset x Hx).
      destruct (a x), (b x); simpl; try ring. discriminate (S eq_refl). }
    assert (L1 : part q p more >= mass_of q more * ln (mass_of q more / mass_of p more)).
    { rewrite !mass_sum.
      replace (part q p more) with (∑ x ∈ X, (if more x then q x else 0) * ln ((if more x then q x else 0) / (if more x then p x else 0))).
      - apply (lem_log_sum X (fun x => if more x then q x else 0) (fun x => if more x then p x else 0)); intros x Hx;
          assert (Q := q_full x Hx); assert (P := p_full x Hx); destruct (more x); lra.
      - apply sum_ext; intros x Hx. assert (Q := q_full x Hx). assert (P := p_full x Hx). destruct (more x); [|ring].
        rewrite !ln_div by trivial. ring. }
    assert (L2 := lem_log_sum [true; false] (fun i : bool => if i then mass_of q more else rest b q)
      (fun i : bool => if i then mass_of p more else rest b p)). simpl in L2. rewrite !Rplus_0_r, <- !rest_more in L2.
    assert (L3 : rest a q * ln (rest a q / rest a p) <= mass_of q more * ln (mass_of q more / mass_of p more) + rest b q * ln (rest b q / rest b p)).
    { apply Rge_le, L2; intros [] _; try apply mass_nonneg_of; apply mass_zero_of. }
    unfold K_A. rewrite D. fold (rest a q) (rest a p) (rest b q) (rest b p). lra.
Qed.

(** With all tokens both are the divergence. *)
Theorem thm_topk_chain_all : (forall x, x ∈ X -> b x = true) -> S_A q p b = KL q p /\ K_A q p b = KL q p.
Proof.
  intros H. split.
  - rewrite <- (mean_k q p) by trivial. apply E_ext; intros x Hx _. rewrite (H x Hx). ring.
  - assert (Z : mass_of q (fun x => negb (b x)) = 0).
    { transitivity (E q (fun _ => 0)); [|apply E_const]. apply E_ext; intros x Hx _. now rewrite (H x Hx). }
    unfold K_A. rewrite Z, Rmult_0_l, Rplus_0_r. apply E_ext; intros x Hx _. rewrite (H x Hx). ring.
Qed.
End Growing.

Section Second.
Context {A : Type} {X : list A}.
Variables (q p : law X) (a : A -> bool).
Hypotheses (q_full : full_support q) (p_full : full_support p).
Let out (x : A) : bool := negb (a x).
Hypothesis qO_pos : 0 < mass_of q out.

(** The second gap is zero if and only if r is constant outside the set. *)
Theorem thm_topk_chain_second_gap_zero (qc pc : law X) :
  (forall x, x ∈ X -> qc x = if out x then q x / mass_of q out else 0) ->
  (forall x, x ∈ X -> pc x = if out x then p x / mass_of p out else 0) ->
  (KL q p - K_A q p a = 0 <-> exists ρ, forall x, x ∈ X -> out x = true -> p x / q x = ρ).
Proof.
  intros Hq Hp. destruct (thm_topk_chain_second_gap q p a q_full p_full qO_pos qc pc Hq Hp) as [G _]. fold out in G. rewrite G.
  assert (P : 0 < mass_of p out) by now apply (mass_positive q p p_full).
  assert (C : qc ≪ pc).
  { intros x Hx Z. rewrite (Hp x Hx) in Z. rewrite (Hq x Hx). destruct (out x); [|easy]. exfalso.
    assert (0 < p x / mass_of p out) by (apply Rdiv_lt_0_compat; auto). lra. }
  destruct (thm_gibbs qc pc C) as (_ & _ & _ & T). split.
  - intros Z. apply Rmult_integral in Z as [Z|Z]; [lra|]. apply T in Z. exists (mass_of p out / mass_of q out).
    intros x Hx O. specialize (Z x Hx). rewrite (Hq x Hx), (Hp x Hx), O in Z. assert (Q := q_full x Hx).
    assert (R : q x * mass_of p out = p x * mass_of q out).
    { apply (Rmult_eq_reg_r (/ mass_of q out * / mass_of p out)); [|apply Rmult_integral_contrapositive_currified; apply Rinv_neq_0_compat; lra].
      transitivity (q x / mass_of q out); [field; lra|]. rewrite Z. field. lra. }
    field_simplify_eq; [lra|lra].
  - intros [ρ R]. replace (KL qc pc) with 0; [ring|]. symmetry. apply T. intros x Hx. rewrite (Hq x Hx), (Hp x Hx).
    destruct (out x) eqn:O; [|easy]. assert (Q := q_full x Hx).
    assert (S : mass_of p out = ρ * mass_of q out).
    { unfold mass_of. rewrite <- E_scal. apply sum_ext; intros y Hy. destruct (out y) eqn:Oy; [|ring].
      assert (Qy := q_full y Hy). rewrite <- (R y Hy Oy). field. lra. }
    assert (N : ρ <> 0). { intros N. rewrite N in S. lra. }
    rewrite S. replace (p x) with (ρ * q x) by (rewrite <- (R x Hx O); field; lra). field. split; lra.
Qed.
End Second.
