"""The types that every stage takes and returns. Imports nothing of ours, and nothing heavy."""

from .budget import Budget, bytes_of
from .errors import OverBudget, Problem, Refused, Undeclared, Unfit, Unreadable, problem_from
from .kinds import (
    KINDS,
    Advising,
    Batch,
    Candidate,
    Checking,
    Coefficients,
    Diverging,
    Encoder,
    Expectation,
    Expecting,
    Experience,
    Finding,
    Fitted,
    Fitting,
    FitView,
    Fusing,
    Gathering,
    Guess,
    InnerProducts,
    Known,
    Learned,
    Learning,
    Looped,
    Looping,
    Matching,
    MergeView,
    Merging,
    Method,
    Passes,
    PastTrials,
    Ranking,
    Raw,
    Recalling,
    Resembling,
    Routed,
    Routing,
    Sample,
    Score,
    Seen,
    Selection,
    SetFunction,
    Split,
    State,
    Steps,
    Survey,
    TaskSample,
    TensorContext,
    Trimming,
    View,
    Weighting,
)
from .metrics import DEFAULT_METRIC, METRICS, Metric, metric_for
from .needs import GIVES, MODALITIES, TASK_TYPES, Gives, Modality, Needs, TaskType
from .receipt import RECEIPT_VERSION, Measured, Receipt
from .result import Prediction, Result
from .source import Source, called
from .target import Columns, Folds, Rows, Seal, Target, Task

__all__ = [
    "DEFAULT_METRIC", "GIVES", "KINDS", "METRICS", "MODALITIES", "RECEIPT_VERSION", "TASK_TYPES", "Advising", "Batch",
    "Budget", "Candidate", "Checking", "Coefficients", "Columns", "Diverging", "Encoder", "Expectation", "Expecting",
    "Experience", "Finding", "FitView", "Fitted", "Fitting", "Folds", "Fusing", "Gathering", "Gives", "Guess",
    "InnerProducts", "Known", "Learned", "Learning", "Looped", "Looping", "Matching", "Measured", "MergeView",
    "Merging", "Method", "Metric", "Modality", "Needs", "OverBudget", "Passes", "PastTrials", "Prediction", "Problem",
    "Ranking", "Raw", "Recalling", "Receipt", "Refused", "Resembling", "Result", "Routed", "Routing", "Rows", "Sample",
    "Score", "Seal", "Seen", "Selection", "SetFunction", "Source", "Split", "State", "Steps", "Survey", "Target",
    "Task", "TaskSample", "TaskType", "TensorContext", "Trimming", "Undeclared", "Unfit", "Unreadable", "View",
    "Weighting", "bytes_of", "called", "metric_for", "problem_from",
]  # fmt: skip
