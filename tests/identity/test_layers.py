"""Layers of torch.nn: every constructor argument that changes a layer changes the digest."""

import pytest
from support.identity import case_name, differ, equal

# what changes, the layer, another one
ARGUMENTS = [
    ("kernel", "nn.Conv2d(3, 8, 3)", "nn.Conv2d(3, 8, 5)"),
    ("kernel turned", "nn.Conv2d(3, 8, (3, 5))", "nn.Conv2d(3, 8, (5, 3))"),
    ("stride", "nn.Conv2d(3, 8, 3)", "nn.Conv2d(3, 8, 3, stride=2)"),
    ("padding", "nn.Conv2d(3, 8, 3)", "nn.Conv2d(3, 8, 3, padding=1)"),
    ("padding mode", "nn.Conv2d(3, 8, 3, padding=1)", "nn.Conv2d(3, 8, 3, padding=1, padding_mode='reflect')"),
    ("dilation", "nn.Conv2d(3, 8, 3)", "nn.Conv2d(3, 8, 3, dilation=2)"),
    ("groups", "nn.Conv2d(4, 8, 3)", "nn.Conv2d(4, 8, 3, groups=2)"),
    ("bias of a convolution", "nn.Conv2d(3, 8, 3)", "nn.Conv2d(3, 8, 3, bias=False)"),
    ("output padding", "nn.ConvTranspose2d(3, 8, 3, stride=2)", "nn.ConvTranspose2d(3, 8, 3, stride=2, output_padding=1)"),
    ("outputs", "nn.Linear(8, 4)", "nn.Linear(8, 5)"),
    ("inputs and outputs swapped", "nn.Linear(8, 4)", "nn.Linear(4, 8)"),
    ("bias", "nn.Linear(8, 4)", "nn.Linear(8, 4, bias=False)"),
    ("linear or bilinear", "nn.Sequential(nn.Linear(4, 4))", "nn.Sequential(nn.Bilinear(4, 4, 4))"),
    ("activation", "nn.Sequential(nn.Linear(4, 4), nn.ReLU())", "nn.Sequential(nn.Linear(4, 4), nn.GELU())"),
    ("approximation of gelu", "nn.GELU()", "nn.GELU(approximate='tanh')"),
    ("slope", "nn.Sequential(nn.LeakyReLU(0.01))", "nn.Sequential(nn.LeakyReLU(0.2))"),
    ("alpha", "nn.ELU(1.0)", "nn.ELU(0.5)"),
    ("number of slopes", "nn.PReLU(1)", "nn.PReLU(4)"),
    ("beta", "nn.Softplus(beta=1)", "nn.Softplus(beta=2)"),
    ("limits", "nn.Hardtanh(-1, 1)", "nn.Hardtanh(-2, 2)"),
    ("softmax axis", "nn.Softmax(dim=1)", "nn.Softmax(dim=-1)"),
    ("dropout rate", "nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1))", "nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))"),
    ("kind of dropout", "nn.Sequential(nn.Dropout(0.1))", "nn.Sequential(nn.Dropout2d(0.1))"),
    ("eps of batch norm", "nn.BatchNorm2d(4)", "nn.BatchNorm2d(4, eps=1e-3)"),
    ("momentum", "nn.BatchNorm2d(4)", "nn.BatchNorm2d(4, momentum=0.01)"),
    ("no momentum", "nn.BatchNorm2d(4)", "nn.BatchNorm2d(4, momentum=None)"),
    ("affine", "nn.BatchNorm2d(4)", "nn.BatchNorm2d(4, affine=False)"),
    ("running statistics", "nn.BatchNorm2d(4)", "nn.BatchNorm2d(4, track_running_stats=False)"),
    ("axes of batch norm", "nn.Sequential(nn.BatchNorm1d(4))", "nn.Sequential(nn.BatchNorm2d(4))"),
    ("eps of layer norm", "nn.LayerNorm(8)", "nn.LayerNorm(8, eps=1e-6)"),
    ("bias of layer norm", "nn.LayerNorm(8)", "nn.LayerNorm(8, bias=False)"),
    ("kind of norm", "nn.Sequential(nn.LayerNorm(8, bias=False))", "nn.Sequential(nn.RMSNorm(8))"),
    ("groups of group norm", "nn.GroupNorm(2, 8)", "nn.GroupNorm(4, 8)"),
    ("padding index", "nn.Embedding(10, 4)", "nn.Embedding(10, 4, padding_idx=0)"),
    ("largest norm", "nn.Embedding(10, 4)", "nn.Embedding(10, 4, max_norm=1.0)"),
    ("gradients by frequency", "nn.Embedding(10, 4)", "nn.Embedding(10, 4, scale_grad_by_freq=True)"),
    ("pooling window", "nn.MaxPool2d(2)", "nn.MaxPool2d(3)"),
    ("rounding of a pool", "nn.MaxPool2d(2)", "nn.MaxPool2d(2, ceil_mode=True)"),
    ("kind of pool", "nn.Sequential(nn.MaxPool2d(2))", "nn.Sequential(nn.AvgPool2d(2))"),
    ("padding in the mean", "nn.AvgPool2d(2, padding=1)", "nn.AvgPool2d(2, padding=1, count_include_pad=False)"),
    ("adaptive size", "nn.AdaptiveAvgPool2d(1)", "nn.AdaptiveAvgPool2d(7)"),
    ("interpolation", "nn.Upsample(scale_factor=2)", "nn.Upsample(scale_factor=2, mode='bilinear')"),
    ("corners", "nn.Upsample(scale_factor=2, mode='bilinear')", "nn.Upsample(scale_factor=2, mode='bilinear', align_corners=True)"),
    ("flattened axes", "nn.Flatten(1)", "nn.Flatten(2)"),
    ("unflattened shape", "nn.Unflatten(1, (2, 4))", "nn.Unflatten(1, (4, 2))"),
    ("pixel shuffle", "nn.PixelShuffle(2)", "nn.PixelShuffle(3)"),
    ("hidden size", "nn.LSTM(4, 8)", "nn.LSTM(4, 16)"),
    ("recurrent layers", "nn.LSTM(4, 8)", "nn.LSTM(4, 8, num_layers=2)"),
    ("directions", "nn.LSTM(4, 8)", "nn.LSTM(4, 8, bidirectional=True)"),
    ("batch first", "nn.LSTM(4, 8)", "nn.LSTM(4, 8, batch_first=True)"),
    ("recurrent dropout", "nn.LSTM(4, 8, 2)", "nn.LSTM(4, 8, 2, dropout=0.3)"),
    ("kind of recurrence", "nn.Sequential(nn.LSTM(4, 8))", "nn.Sequential(nn.GRU(4, 8))"),
    ("nonlinearity", "nn.RNN(4, 8)", "nn.RNN(4, 8, nonlinearity='relu')"),
    ("heads", "nn.MultiheadAttention(8, 2)", "nn.MultiheadAttention(8, 4)"),
    ("attention dropout", "nn.MultiheadAttention(8, 2)", "nn.MultiheadAttention(8, 2, dropout=0.1)"),
    ("attention batch first", "nn.MultiheadAttention(8, 2)", "nn.MultiheadAttention(8, 2, batch_first=True)"),
    ("zero attention", "nn.MultiheadAttention(8, 2)", "nn.MultiheadAttention(8, 2, add_zero_attn=True)"),
    ("norm first", "nn.TransformerEncoderLayer(8, 2, 16)", "nn.TransformerEncoderLayer(8, 2, 16, norm_first=True)"),
    ("function as activation", "nn.TransformerEncoderLayer(8, 2, 16)", "nn.TransformerEncoderLayer(8, 2, 16, activation=F.gelu)"),
    ("lambda as activation",
     "nn.TransformerEncoderLayer(8, 2, 16, activation=lambda x: F.leaky_relu(x, 0.1))",
     "nn.TransformerEncoderLayer(8, 2, 16, activation=lambda x: F.leaky_relu(x, 0.2))"),
]  # fmt: skip
SPELLINGS = [
    ("one size or a pair", "nn.Conv2d(3, 8, 3)", "nn.Conv2d(3, 8, (3, 3))"),
    ("default or given", "nn.Conv2d(3, 8, 3)", "nn.Conv2d(3, 8, 3, stride=1, padding=0, bias=True)"),
    ("size by name", "nn.Linear(8, 4)", "nn.Linear(in_features=8, out_features=4)"),
    ("inplace left at its default", "nn.ReLU()", "nn.ReLU(inplace=False)"),
]  # fmt: skip
CASES = [differ(*row) for row in ARGUMENTS] + [equal(*row) for row in SPELLINGS]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_layers_of_torch(case):
    case.check()
