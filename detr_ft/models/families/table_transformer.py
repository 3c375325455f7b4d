"""Table Transformer (Smock et al., CVPR 2022): a DETR with norms before attention."""

from __future__ import annotations

from dataclasses import replace

from transformers import TableTransformerForObjectDetection
from transformers.models.table_transformer.modeling_table_transformer import TableTransformerFrozenBatchNorm2d

from detr_ft.models.families.detr import DETR

TABLE_TRANSFORMER = replace(
    DETR,
    name="Table Transformer",
    model_type="table-transformer",
    model_class=TableTransformerForObjectDetection,
    supports=DETR.supports - {"gradient_checkpointing", "no_sync", "cuda_graphs"},
    backbone="model.backbone.conv_encoder.model",
    frozen_norm=TableTransformerFrozenBatchNorm2d,
)
