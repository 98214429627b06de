"""The command line of training: its commands."""

from hvf_core.options import app_of
from offline_train.commands.calibrate import calibrate, personalise
from offline_train.commands.datasets import datasets
from offline_train.commands.evaluate import evaluate
from offline_train.commands.evaluate_prior import evaluate_prior
from offline_train.commands.experiments import experiments
from offline_train.commands.features import features
from offline_train.commands.fetch import fetch
from offline_train.commands.gallery import gallery
from offline_train.commands.hub import empty_prompt, import_features, import_prior, share
from offline_train.commands.mbp import mbp
from offline_train.commands.onnx import onnx
from offline_train.commands.prepare import prepare, prepare_test
from offline_train.commands.prior import prior

app = app_of(
    "Produces the models of the live system: prepare, mbp, gallery, then evaluate; and prior, "
    "for those that paint.",
    datasets,
    *(prepare, prepare_test, features, mbp, gallery, calibrate, evaluate, experiments),
    *(personalise, onnx, share, fetch),
    *(import_prior, import_features),
    *(empty_prompt, prior, evaluate_prior),
)
