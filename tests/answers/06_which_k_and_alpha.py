"""06: the answers to its exercises, and whether what it says to notice is there."""

answer("Answer: the setting that is chosen", choice.chosen, "k=all alpha=1.25")
for rule, k in (("noise", 5.5), ("gap", 1), ("energy", 10.5), ("gavish_donoho", 29.5)):
    answer(f"Notice: median k by {rule}", rules[rule].median(), k)
fuller = sweep(KS, ALPHAS, ATTACKS, world=PAIR, limit=ASKED, store=store)
answer("1: the setting that is chosen of all", choose(fuller, loss=0.02).chosen, "k=6 alpha=1.25")
answer("2: directions for .99 of the energy", rank_rules(subspace, 0.99)["energy"].median(), 46)
