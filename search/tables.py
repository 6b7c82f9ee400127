"""Optuna's tables, as far as they are read here without it.

Its own interface asks each study in turn, ten statements for one. Where many are read, their number
must not decide how many statements that takes.
"""

from sqlalchemy import column, table

STUDIES = table("studies", *map(column, ("study_id", "study_name")))
ABOUT = table("study_user_attributes", *map(column, ("study_id", "key", "value_json")))
TRIALS = table("trials", *map(column, ("trial_id", "study_id", "number", "state")))
PARAMETERS = table("trial_params", *map(column, ("trial_id", "param_name", "param_value")))
VALUES = table("trial_values", *map(column, ("trial_id", "objective", "value")))
