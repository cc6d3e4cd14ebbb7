"""An ONNX file in OpenVINO, on the CPU. Loads no PyTorch.

OpenVINO knows no functions: what it gets is the file with the bodies in their nodes' places,
made in memory. The file on the disk stays as it is.

next: runtimes/parsed.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensormask_edu.base.errors import InputError
from tensormask_edu.base.packages import required

from .. import contract
from ..onnx_file.portable import portable
from ..onnx_file.read import read_metadata
from ..shapes import Array, Named
from .session import Session

if TYPE_CHECKING:
    import onnx


class OpenvinoSession(Session):
    """An ONNX file in OpenVINO.

    Args:
        proto: the file.
        threads: 0: as many as OpenVINO takes by itself.

    Raises:
        InputError: no OpenVINO, or one that does not take the file.
    """

    kind = "openvino"

    def __init__(self, proto: onnx.ModelProto, threads: int = 0) -> None:
        openvino = required("openvino", "openvino")
        # Else it computes in bfloat16 on processors that have it
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        try:
            core = openvino.Core()
            model = core.read_model(portable(proto).SerializeToString())
            self.compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            problem = f"OpenVINO does not load the file ({reason})"
            raise InputError(f"model: {problem}; export it again") from None
        version = openvino.__version__.split("-")[0]  # a build number and a branch follow
        super().__init__(f"openvino {version}", "CPU", read_metadata(proto, "the file"))
        self.title = f"{self.name} CPU"

    def all_outputs(self, images: Array) -> Named:
        outputs = self.compiled({contract.IMAGES: images})
        return {name: values.copy() for port, values in outputs.items() for name in port.names}
