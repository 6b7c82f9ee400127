"""What to try next: arithmetic on unit cubes, without Ray and without a language model.

Reading order: `configuration`, `layers` and `space` (what a configuration means), `pareto` (what is
better), `samplers` (who proposes), `design` (points that need no model), `kernels`, `surrogate`,
`nuts`, `improvement`, `acquisition` and `bayesian` (what is likely to be better), `optuna_samplers`
(Optuna's own), `rows` (trials as a database keeps them), `patience` (one that may be away for a
while), `storage`, `header`, `tables` and `study` (one user's trials, kept in it), `census` (where
many users' stand), `stopping` (which trials are not worth finishing), `certainty` (how sure the
winner is), `evidence`, `source` and `transfer` (what other users' studies show, mean and advise).
"""
