//! Operators of `com.microsoft` that optimized and quantized models use.

#![allow(clippy::unnecessary_wraps)] // A `Rule` may have no answer, even if this one has.

use super::context::Context;
use super::dims;
use super::elementwise::{as_input, broadcast, layer_normalization};
use super::rule::{Rule, Shapes, one};
use super::{conv, layout, matrix, recurrent, reduce};
use crate::Dim;

pub(super) fn rule(op: &str) -> Option<Rule> {
    let rule: Rule = match op {
        "BiasGelu" | "DequantizeLinear" | "FastGelu" | "Gelu" | "QLinearLeakyRelu"
        | "QLinearSigmoid" | "QLinearSoftmax" | "QuantizeLinear" | "QuickGelu"
        | "RotaryEmbedding" | "Trilu" | "BiasSoftmax" | "BiasAdd" | "GroupNorm" | "Inverse"
        | "BiasDropout" => as_input,
        "MulInteger" => |context| pair(context, 0, 2),
        "QLinearAdd" | "QLinearMul" => |context| pair(context, 0, 3),
        "ComplexMul" | "ComplexMulConj" => broadcast,
        "QLinearWhere" => |context| {
            let both = dims::broadcast(context.shape(1)?, context.shape(4)?)?;
            one(dims::broadcast(context.shape(0)?, &both)?)
        },
        "LayerNormalization" => layer_normalization,
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => skip_normalization,
        "FusedMatMul" | "TransposeMatMul" => fused_matmul,
        "MatMulInteger16"
        | "MatMulIntegerToFloat"
        | "DynamicQuantizeMatMul"
        | "FusedMatMulActivation" => |context| matrix::product(context, 0, 1),
        "FusedGemm" | "GemmFastGelu" => |context| matrix::gemm(context, 0, 1),
        "QGemm" => |context| matrix::gemm(context, 0, 3),
        "MatMulNBits" | "MatMulBnb4" => packed_matmul,
        "FusedConv" => |context| conv::conv(context, 1),
        "QLinearConv" => {
            |context| (context.int("channels_last", 0) == 0).then(|| conv::conv(context, 3))?
        }
        "QLinearGlobalAveragePool" => |context| {
            if context.int("channels_last", 0) != 0 {
                return None;
            }
            let mut shape = context.shape(0)?.clone();
            shape.iter_mut().skip(2).for_each(|size| *size = Dim::Fixed(1));
            one(shape)
        },
        "QLinearConcat" => {
            |context| layout::concat(context, (2..context.input_count()).step_by(3), 0)
        }
        "QLinearReduceMean" | "ReduceSumInteger" => |context| {
            // Axes are an attribute here, never the second input.
            context.ints("axes").and_then(|_| reduce::reduce(context))
        },
        "GatherBlockQuantized" => gather_blocks,
        "DynamicQuantizeLSTM" => recurrent::recurrent,
        "Attention" | "QAttention" => attention,
        "MultiHeadAttention" => multi_head,
        "GroupQueryAttention" => grouped,
        "EmbedLayerNormalization" => embed,
        _ => return None,
    };
    Some(rule)
}

fn pair(context: &Context<'_>, a: usize, b: usize) -> Option<Shapes> {
    one(dims::broadcast(context.shape(a)?, context.shape(b)?)?)
}

/// The fourth output is the sum before it is normalized.
fn skip_normalization(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?.clone();
    let mut statistics = shape.clone();
    *statistics.last_mut()? = Dim::Fixed(1);
    Some(vec![Some(shape.clone()), Some(statistics.clone()), Some(statistics), Some(shape)])
}

fn fused_matmul(context: &Context<'_>) -> Option<Shapes> {
    if context.int("transBatchA", 0) != 0 || context.int("transBatchB", 0) != 0 {
        return None;
    }
    let side = |index: usize, name: &str| {
        let mut shape = context.shape(index)?.clone();
        let rank = shape.len();
        if context.int(name, 0) != 0 && rank >= 2 {
            shape.swap(rank - 2, rank - 1);
        }
        Some(shape)
    };
    one(matrix::matmul(&side(0, "transA")?, &side(1, "transB")?)?)
}

/// The weight is packed; the attribute `N` says how many columns it has.
fn packed_matmul(context: &Context<'_>) -> Option<Shapes> {
    let mut shape = context.shape(0)?.clone();
    *shape.last_mut()? = dims::dim(context.int("N", -1));
    one(shape)
}

/// Like `Gather`; in uint8 tables two elements of 4 bits share a byte of the last axis.
fn gather_blocks(context: &Context<'_>) -> Option<Shapes> {
    let mut shapes = layout::gather(context, "gather_axis")?;
    if context.elem(0) == Some(crate::DataType::UINT8)
        && let Some(Some(shape)) = shapes.first_mut()
    {
        let last = shape.last_mut()?;
        *last = match context.int("bits", 4) {
            4 => dims::times(last, 2),
            8 => last.clone(),
            _ => Dim::Unknown,
        };
    }
    Some(shapes)
}

/// Input `[batch, length, hidden]` with query, key and value weights side by side.
fn attention(context: &Context<'_>) -> Option<Shapes> {
    let [batch, length, _] = context.shape(0)?.as_slice() else {
        return None;
    };
    let hidden = match context.ints("qkv_hidden_sizes") {
        Some([_, _, value]) => dims::dim(*value),
        Some(_) => return None,
        None => dims::divided(&context.dim(1, 1), 3),
    };
    one(vec![batch.clone(), length.clone(), hidden])
}

/// Query `[batch, length, hidden]`; the result has the hidden size of the value.
fn multi_head(context: &Context<'_>) -> Option<Shapes> {
    let ([batch, length, _], [_, _, hidden]) =
        (context.shape(0)?.as_slice(), context.shape(2)?.as_slice())
    else {
        return None;
    };
    one(vec![batch.clone(), length.clone(), hidden.clone()])
}

/// Query `[batch, length, hidden]`, or query, key and value packed in it.
fn grouped(context: &Context<'_>) -> Option<Shapes> {
    let [batch, length, hidden] = context.shape(0)?.as_slice() else {
        return None;
    };
    let hidden = if context.has(1) {
        hidden.clone()
    } else {
        let (q, kv) = (context.int("num_heads", 0), context.int("kv_num_heads", 0));
        let heads = kv.checked_mul(2).and_then(|kv| kv.checked_add(q)).filter(|n| *n > 0)?;
        dims::times(&dims::divided(hidden, heads), q)
    };
    one(vec![batch.clone(), length.clone(), hidden])
}

fn embed(context: &Context<'_>) -> Option<Shapes> {
    let [batch, length] = context.shape(0)?.as_slice() else {
        return None;
    };
    let sum = vec![batch.clone(), length.clone(), context.dim(2, 1)];
    Some(vec![Some(sum.clone()), Some(vec![batch.clone()]), Some(sum)])
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn fused_products() {
        let ms = |op: &str, inputs, outputs| check(&format!("com.microsoft.{op}"), inputs, outputs);
        ms("FusedMatMul transB=i1", "float[b,n,4]; float[5,4]", "float[b, n, 5]");
        ms("MatMulNBits K=i4 N=i7", "float[b,n,4]; uint8[7,1,2]; float[7]", "float[b, n, 7]");
        ms("DynamicQuantizeMatMul", "float[n,4]; int8[4,5]; float[5]", "float[n, 5]");
        ms("MatMulIntegerToFloat", "uint8[n,4]; int8[4,5]; float[]; float[5]", "float[n, 5]");
        ms(
            "QGemm transB=i1",
            "uint8[n,4]; float[]; uint8[]; int8[5,4]; float[]; int8[]",
            "float[n, 5]",
        );
        ms("Attention num_heads=i2", "float[b,t,8]; float[8,24]; float[24]", "float[b, t, 8]");
        ms(
            "GroupQueryAttention num_heads=i4 kv_num_heads=i2",
            "float[b,t,64]; -; -",
            "float[b, t, 32]",
        );
    }

    #[test]
    fn normalizations_and_quantized() {
        check(
            "com.microsoft.SkipLayerNormalization",
            "float[b,t,8]; float[b,t,8]; float[8]",
            "float[b, t, 8]; float[b, t, 1]",
        );
        check("com.microsoft.Gelu", "float16[n]", "float16[n]");
        check(
            "com.microsoft.QLinearAdd",
            "uint8[n,1]; float[]; uint8[]; uint8[3]; float[]; uint8[]; float[]; uint8[]",
            "uint8[n, 3]",
        );
        check(
            "com.microsoft.QLinearConcat axis=i1",
            "float[]; uint8[]; uint8[n,2]; float[]; uint8[]; uint8[n,3]; float[]; uint8[]",
            "uint8[n, 5]",
        );
    }
}
