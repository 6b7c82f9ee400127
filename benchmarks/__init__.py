"""Measurements: what is printed here may stand in the documentation. Not installed with Milpa.

real_users          a search and its comparison on users of a data set
ablations           the paper's ablations on the same users and seeds
    ablation_table      each beside the whole space
agreement           two comparisons on different users: whether their orders agree
leaks               the comparison on permuted histories: no method may gain by a stranger's
    permuted            such data
    controls            what each method gives without the user's history
history_length      a memory trained on the newest 25 to 100 % of a history
    history_figures     its table and plots
training            what trials cost, against Tune with PEFT: `make bench-train`
    workload            users as tokens, and trials: what every side does
    recorded            a run's users as a workload
    packed_search       the trials of a search, timed from inside
    peft_trial          one trial as a user of PEFT writes it
    baseline_tune_peft  such trials by Ray Tune, in two forms
    meter               CPU-seconds and memory of a command's processes
    training_table      the figures as a table
pack_sizes          1 to 16 memories in a pack
measures            what each of the trainer's measures is worth
    plain_ways          what stands in the place of one that is taken away
products            matrix products and attention of our own, against torch's
frozen_share        what keeping the base's activations would save at most
beyond              what of a comparison lies beyond its base's training windows
positions           how a base predicts at each position, beyond its training windows too
compiled            whether torch.compile pays, the time to compile counted
samplers            what each sampler reaches in so many trials: `make bench-search`
    problem             made-up users whose front is known
    recorded_problem    real users, every configuration of a small space trained; one comes along
                        as recorded-chatter.csv.gz
    record              makes such a table
    cohorts             who searches on whom
    searches            one search, kept as a file
    curves              what searches show
    standings           figures and tables
    drawing             lines as SVG
    surrogates          what a surrogate may see, and its kernel: the losers too
    beginnings          a design with and without what needs no search
    squeezing           a surrogate that sees what is far worse squeezed together
transfer            a new user's search with and without what others' studies advise
    pooling             a surrogate that begins with what others' studies lead one to expect
budget              a total of trials shared alike, and by what the next one promises
stopping            what stopping trials early saves and costs, on recorded trials
    replayed            searches on recorded trials, in milliseconds
driver              what a search costs beside its training, by thousands of trials
driver_kills        the same killed at random moments: what is lost, what comes out else
    reproposed          whether each proposal is what its grounds give
    driver_watch        processes sampled while they work
    driver_figures      what the samples say
    stand_in            a packer's bench that takes milliseconds
packing             K memories against PEFT one at a time, on a GPU, without Ray
    shapes              random bases of 1B and 7B shape, made on the device
    short_users         made-up users with short items, and their trials
    packing_setup       all of these together
    packed_trials       trials through Milpa's trainer and scores
    single_trials       the same by PEFT
    device              a clock, and the matrix peak
    useful_work         operations that a trial can't do without
    packing_figures     rates, ratios, bytes
pack_bytes          what a pack holds beside what it can't do without
"""
