//! `Cast`.

use modelopt_graph::{DataType, Tensor};

use super::call::{Call, Folded, NotFolded, bytes, dense};
use super::number::{Number, Wide, for_float, for_number, numbers};

/// `Cast`, from version 6 on, where `to` is a number. Floats that do not fit an integer type
/// have no defined result and are not cast.
pub(super) fn cast(call: &Call<'_>) -> Folded<Tensor> {
    if call.version < 6 {
        return Err(NotFolded::Unsupported);
    }
    let data = call.input(0)?;
    let to = call.int("to")?.ok_or(NotFolded::Invalid("the type to cast to is missing"))?;
    let to = i32::try_from(to).map_err(|_| NotFolded::Unsupported)?;
    let to = DataType::from_number(to);
    call.room(to, data.shape())?;
    if to == data.dtype() {
        return data.reshaped(data.shape().to_vec()).map_err(|_| NotFolded::Unsupported);
    }
    if data.dtype() == DataType::BOOL {
        let zeros_and_ones: Vec<u8> = bytes(data)?.iter().map(|&x| u8::from(x != 0)).collect();
        return convert::<u8>(data.shape(), &zeros_and_ones, to);
    }
    for_number!(data.dtype(), T => convert::<T>(data.shape(), &numbers::<T>(data)?, to))
}

fn convert<S: Number>(shape: &[usize], elements: &[S], to: DataType) -> Folded<Tensor> {
    if to == DataType::BOOL {
        let bits = elements.iter().map(|x| u8::from(x.wide() != S::Wide::ZERO)).collect();
        return dense(to, shape.to_vec(), bits);
    }
    for_number!(to, T => {
        let cast = elements.iter().map(|x| x.wide().to::<T>()).collect::<Option<Vec<T>>>();
        Tensor::of(shape.to_vec(), &cast.ok_or(NotFolded::Unsupported)?)
            .map_err(|_| NotFolded::Unsupported)
    })
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use modelopt_graph::Element;

    use super::super::testing::{Case, bools, floats, ints};
    use super::*;

    fn to<T: Element>(tensor: Tensor) -> Folded<Vec<T>> {
        let to = i64::from(T::DTYPE.number());
        let cast = Case::new("Cast").input(tensor).attribute("to", to).one(13)?;
        Ok(cast.elements::<T>().unwrap().into_owned())
    }

    #[test]
    fn floats_round_and_truncate() {
        let data = || floats(&[4], &[1.9, -1.9, 0.1, -0.0]);
        assert_eq!(to::<i64>(data()), Ok(vec![1, -1, 0, 0]));
        assert_eq!(to::<f64>(floats(&[1], &[0.1])), Ok(vec![f64::from(0.1f32)]));
        assert_eq!(to::<f16>(floats(&[1], &[1e6])), Ok(vec![f16::INFINITY]));
        assert_eq!(to::<f32>(Tensor::scalar(bf16::from_f32(3.0))), Ok(vec![3.0]));
        for bad in [f32::NAN, f32::INFINITY, 2_147_483_648.0] {
            assert_eq!(to::<i32>(floats(&[1], &[bad])), Err(NotFolded::Unsupported));
        }
    }

    #[test]
    fn integers_keep_their_low_bits() {
        assert_eq!(to::<i8>(ints(&[200, -129])), Ok(vec![-56, 127]));
        assert_eq!(to::<u64>(ints(&[-1])), Ok(vec![u64::MAX]));
        assert_eq!(to::<f32>(ints(&[16_777_217, -3])), Ok(vec![16_777_216.0, -3.0]));
        assert_eq!(to::<f32>(Tensor::scalar(u64::MAX)), Ok(vec![18_446_744_073_709_551_616.0]));
    }

    #[test]
    fn booleans_are_zero_and_one() {
        let odd = Tensor::dense(DataType::BOOL, vec![3], vec![0, 1, 7]).unwrap();
        assert_eq!(to::<f32>(odd), Ok(vec![0.0, 1.0, 1.0]));
        let data = floats(&[4], &[0.0, -0.0, 0.5, f32::NAN]);
        let case = Case::new("Cast").input(data).attribute("to", 9);
        assert_eq!(case.one(13), Ok(bools(&[false, false, true, true])));
        assert_eq!(case.one(5), Err(NotFolded::Unsupported));
    }

    #[test]
    fn other_types_stay() {
        let case = |to: i64| Case::new("Cast").input(ints(&[1])).attribute("to", to).one(21);
        for number in [8, 14, 17, 22, 999, i64::MAX] {
            assert_eq!(case(number), Err(NotFolded::Unsupported));
        }
    }
}
