"""What the heads made of coupling layers share: their options, and a network for each layer."""

from typing import Any

import keras

from tf_detreg import checks
from tf_detreg.heads.conditioner import Conditioner
from tf_detreg.heads.flow import FlowHead


class CouplingHead(FlowHead):
    """A flow whose layers are driven by networks; `RealNVP`, `NICE` and `Glow`, made from it, describe the options."""

    def __init__(
        self,
        dim: int,
        depth: int = 12,
        hidden: int = 512,
        hidden_layers: int = 1,
        activation: Any = "relu",
        conditioner_dropout: float = 0.0,
        scale_bound: float = 0.5,
        penalty: float = 0.0,
        measure: str = "isometric",
        projection: str = "auto",
        dropout: float = 0.0,
        connection: str = "rms",
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(
            dim, penalty, measure, projection, dropout, connection, name=name, dtype=dtype, trainable=trainable
        )
        self.depth = checks.integer("depth", depth, 1)
        self.hidden = checks.integer("hidden", hidden, 1)
        self.hidden_layers = checks.integer("hidden_layers", hidden_layers, 0)
        self.activation = keras.activations.get(activation)
        self.conditioner_dropout = checks.within("conditioner_dropout", conditioner_dropout, 0, 1, "[)")
        self.scale_bound = checks.positive("scale_bound", scale_bound)

    def build_conditioners(self, sizes: list[tuple[int, int]]) -> list[Conditioner]:
        """Return one built network per layer, from `(inputs, outputs)` pairs."""
        nets = []
        for layer, (inputs, outputs) in enumerate(sizes):
            net = Conditioner(
                outputs,
                self.hidden,
                self.hidden_layers,
                self.activation,
                self.conditioner_dropout,
                name=f"conditioner_{layer}",
                dtype=self.dtype_policy,
            )
            net.build((None, inputs))
            nets.append(net)
        return nets

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "depth": self.depth,
            "hidden": self.hidden,
            "hidden_layers": self.hidden_layers,
            "activation": keras.activations.serialize(self.activation),
            "conditioner_dropout": self.conditioner_dropout,
            "scale_bound": self.scale_bound,
        }
