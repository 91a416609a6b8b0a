"""The CPU build of the detection kernel against plain torch, and by hand. Skipped without a C++ compiler."""

import shutil

import pytest
import torch

from sim.baseline.kernels.detection import Predictions, detection_postprocess, random_predictions, reference
from sim.errors import MeasurementError

pytestmark = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")


@pytest.mark.parametrize(("boxes", "classes", "candidates"), [(1, 1, 10), (700, 5, 1000), (3000, 3, 20)])
def test_kernel_equals_plain_torch(boxes, classes, candidates):
    predictions = random_predictions(2, boxes, classes, device="cpu", seed=3)
    got = detection_postprocess(predictions, candidates=candidates)
    for i, (expected_boxes, scores, labels) in enumerate(reference(predictions, candidates=candidates)):
        count = int(got.counts[i])
        assert count == len(scores)
        torch.testing.assert_close(got.boxes[i, :count], expected_boxes, rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(got.scores[i, :count], scores, rtol=1e-5, atol=1e-6)
        assert got.labels[i, :count].tolist() == labels.tolist()


def test_suppression_by_hand():
    """Three 10 x 10 boxes at x = 0, 2, 8 (deltas zero, so that anchors are the boxes). IoU(0, 2) = 80/120 = 0.67,
    IoU(0, 8) = 20/180 = 0.11, IoU(2, 8) = 40/160 = 0.25. Scores rise with the index, one class, limit 0.5:
    8 is kept first, then 2 (0.25), and 0 falls to 2. With two classes (the second box of class 1) all stay."""
    anchors = torch.tensor([[5.0, 5, 10, 10], [7, 5, 10, 10], [13, 5, 10, 10]])
    one = Predictions(torch.zeros(1, 3, 4), torch.tensor([[[1.0], [2.0], [3.0]]]), anchors)
    got = detection_postprocess(one, candidates=5)
    assert int(got.counts[0]) == 2
    assert got.boxes[0, :2].tolist() == [[8, 0, 18, 10], [2, 0, 12, 10]]
    two = Predictions(torch.zeros(1, 3, 4), torch.tensor([[[1.0, -9], [-9, 2.0], [3.0, -9]]]), anchors)
    got = detection_postprocess(two, candidates=5)
    assert int(got.counts[0]) == 3
    assert got.labels[0, :3].tolist() == [0, 1, 0]


def test_nothing_above_the_threshold_gives_no_box():
    none = Predictions(torch.zeros(1, 4, 4), torch.full((1, 4, 2), -9.0), torch.ones(4, 4))
    assert detection_postprocess(none).counts.tolist() == [0]


def test_wrong_shapes_are_refused():
    bad = Predictions(torch.zeros(1, 3, 4), torch.zeros(1, 3, 2), torch.ones(4, 4))
    with pytest.raises(MeasurementError, match="anchors"):
        detection_postprocess(bad)
