"""07: the answers to its exercises, and whether what it says to notice is there."""

for arm, asr in (("LoX", 0), ("full delta", 0), ("random subspace", 0.98), ("shuffled", 0.98)):
    answer(f"Answer: ASR of {arm} after the sums", table.pooled("asr", ATTACK, arm).value, asr)
shares = {row["change"]: row["share"] for row in found.rows}
for change, share in (("arithmetic", 0.29), ("mixed", 0.25), ("aligned, other order", 0.77)):
    answer(f"Notice: share of {change} in the subspace", shares[change], share)
answer("Notice: share by chance", found.rows[0]["chance"], 0.03)
after = known.entries().query("measure == 'asr' and arm == 'LoX'").set_index("attack")["value"]
answer("Answer: LoX, its step guessed and taken out", after["arithmetic, subtract by guess"], 0.98)
one = compare_defences([0], ATTACK, arms=("aligned", "LoX", "kind:down_proj"), k=K, **options)
answer("1: ASR of LoX on down_proj alone", one.pooled("asr", ATTACK, "kind:down_proj").value, 0.25)
energy = subspace.norms**2
held = (subspace.energy(K) * energy).sum() / energy.sum()
answer("2: what the subspace holds of its own change", held, 0.83)
