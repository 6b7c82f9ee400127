"""Where a search runs: Ray, Ray Tune and the run's folder. It imports `search` and `models`.

In reading order:

experiment.py  what a person sets, presets, flags
folder.py      the run's folder: paths, key, locks, and whether it may be gone on with
users.py       who is searched, who is the population, who is left out
connection.py  an embedded Ray or an existing cluster, and what it must offer
workbench.py   one base with its pack and its scoring, without Ray
packer.py      actor, one per device: the workbench's shell
trial.py       Tune trainable: one (user, configuration), asked of a packer
asker.py       actor: proposals of one user's study after another
searcher.py    Tune searcher over the studies of many users
shard.py       actor: the Tune controller of some users
winners.py     every user's winner, trained once more and published
progress.py    how far each user is, as a table or as lines
run.py         the whole way: histories, search, winners, registry, results, report
results.py     what a run found out
report.py      the pages of a run
compare.py     every method on the test split
submit.py      a search as a job on a cluster
"""
