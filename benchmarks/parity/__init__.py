"""Is every map the one its paper defines, in every number format and whoever calls?

``python -m benchmarks.parity --json`` compares what `exporter.compute_maps` gives with references
that share no code with the package: the papers' formulas, written plainly over raw autograd
(`taking`, `formulas`, `perturbation`, `pixels`, `attention`), and other libraries where they
compute the same (`peers`). `formats` compares number formats, `behaviour` and `state` what must
not matter to a map.
"""
