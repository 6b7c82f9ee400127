"""Where a search runs: Ray, Ray Tune and the run's folder. It imports `search` and `models`.

In reading order:

experiment.py   what a person sets, presets, flags
ablations.py    the paper's ablations as presets
private.py      files that their owner alone reads, written aside and renamed
folder.py       the run's folder: paths, key, locks, and whether it may be gone on with
users.py        who is searched, who is the population, who is left out
preparation.py  a run before anything is trained
process.py      how a process is set up, how work breaks off, and whether it prints to a log
connection.py   an embedded Ray or an existing cluster, and what it must offer
subjects.py     the users whose memories train on a device
workbench.py    one base with its pack and its scoring, without Ray
chosen.py       how right a model's picks among options were
inside.py       what a user's memory changed, as it is kept and shown
winners.py      a winner as it is published
failures.py     what may be said of a task that failed
bench.py        what a packer drives
packer.py       actor, one per device: the workbench's shell
trial.py        Tune trainable: one (user, configuration), asked of a packer
asker.py        actor: proposals of one user's study after another
budget.py       who gets the next trial, and when a search is over
studies.py      the studies of a shard's users: asking and telling
searcher.py     Tune searcher over the studies of many users
entries.py      Tune's record of each trial, with what a search needs of it
stopping.py     Tune scheduler that stops trials that are not worth finishing
reserved.py     slots that a shard reserves, and how a dead one's are freed
outcomes.py     how trials ended, counted for Prometheus
shard.py        the Tune controller of some users
controllers.py  processes for one shard after another
shared.py       what users share, learned before the search
streams.py      many Ray streams followed at once
progress.py     how far each user is, as a table or as lines
repeats.py      a winner and its runner-up trained again with other seeds
schedule.py     shard after shard, and every user's winner
afterwards.py   those left out published, and personal gain
run.py          the whole way: histories, search, winners, registry, results, report
forget.py       users removed from a run or a comparison; traces, forget_compared serve it
results.py      what a run found out
report.py       the page of a run; wording, facts, courses, gains, plots and overview serve it
measuring.py    one model on users' test items: losses, answers, picks
strangers.py    whose memories a user's own is held against
compare.py      a run on the test split; comparison, comparison_text and grid serve it
contest.py      every method on equal terms, from the data to the table
terms.py        what a person sets for that
groundwork.py   a comparison before anything is trained
entrant.py      a method with so many trials: a row of the table
effort.py       how much work that is, and in which order
unit.py         a piece of it, and its outcome on disk
station.py      actor, one per device: does units, one at a time
arena.py        the base and the users that it does them with
trainings.py    one method's trainings of all users in a pack; apart serves it
tuning.py       what is tried next, and which trial was best
validation.py   units on the validation part
finals.py       units on the test part
attention.py    which slots of a state attend to which items of its user
burden.py       what a state costs in bytes, tokens and time
tally.py        from all outcomes to the standing
pooled.py       measures over all users' items at once: F1 and RMSE
standing.py     how methods stand: values, differences, intervals; standing_text prints it
slots_page.py   the page that shows it
judgements.py   what judges have said, kept by digests
judge.py        which of two answers is better, asked of an endpoint
win_rate.py     how often one method wins against another by a judge
verdicts.py     that, for every row of a comparison
submit.py       a search as a job on a cluster
"""
