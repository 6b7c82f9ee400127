"""What to try next: arithmetic on unit cubes, without Ray and without a language model.

Reading order: `space` (what a configuration means), `pareto` (what is better), `surrogate` and
`acquisition` (what is likely to be better), `samplers` (who proposes), `storage` and `study` (one
user's trials, kept in a database).
"""
