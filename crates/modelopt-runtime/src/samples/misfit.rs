//! How an array differs from what a model takes.
//!
//! Names of element types are `NumPy`'s here, since that is where samples come from.

use std::fmt;

use modelopt_graph::{DataType, Dim, Tensor, Type};

/// How an array differs from what a model takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misfit {
    /// It is of another element type.
    Type {
        /// That of the array.
        is: DataType,
        /// That of the model's input.
        wanted: DataType,
    },
    /// It has another shape.
    Shape {
        /// That of the array.
        is: Vec<usize>,
        /// That of the model's input.
        wanted: Vec<Dim>,
        /// How it could be made right.
        cure: Option<Cure>,
    },
}

/// What makes a shape right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cure {
    /// A batch of one in front.
    AddBatch,
    /// Without the first dimension.
    DropFirst,
    /// Channels in front of height and width.
    ChannelsFirst,
    /// Channels behind height and width.
    ChannelsLast,
    /// A batch of one, with channels in front of height and width.
    BatchOfChannelsFirst,
}

impl Misfit {
    /// What does not fit, if anything; without `shape` any one does.
    pub(super) fn of(tensor: &Tensor, elem: DataType, shape: Option<&[Dim]>) -> Option<Self> {
        if tensor.dtype() != elem {
            return Some(Misfit::Type { is: tensor.dtype(), wanted: elem });
        }
        let wanted = shape.filter(|wanted| !fits(wanted, tensor.shape()))?.to_vec();
        let cure = Cure::of(&wanted, tensor.shape());
        Some(Misfit::Shape { is: tensor.shape().to_vec(), wanted, cure })
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::Type { is, wanted } => {
                let (is_name, wanted_name) = (numpy_name(*is), numpy_name(*wanted));
                write!(f, "is {is_name}, the model wants {wanted_name}")?;
                let convertible = |dtype| dtype != DataType::STRING && numpy_has(dtype);
                if !convertible(*is) || !convertible(*wanted) {
                    return Ok(());
                }
                write!(f, "; convert it with .astype('{wanted_name}')")
            }
            Misfit::Shape { is, wanted, cure } => {
                // Without the element type in front.
                let shown = Type::Tensor { elem: DataType::FLOAT, shape: Some(wanted.clone()) };
                let shown = shown.to_string();
                let shown = shown.find('[').and_then(|at| shown.get(at..)).unwrap_or(&shown);
                if is.len() == wanted.len() {
                    write!(f, "has shape {is:?}, the model wants {shown}")?;
                } else {
                    let (rank, wants) = (is.len(), wanted.len());
                    write!(f, "has shape {is:?}, of rank {rank}, ")?;
                    write!(f, "the model wants {shown}, of rank {wants}")?;
                }
                cure.map_or(Ok(()), |cure| write!(f, "; {cure}"))
            }
        }
    }
}

impl Cure {
    /// How the shape could be made right, where one thing would do.
    fn of(wanted: &[Dim], shape: &[usize]) -> Option<Self> {
        let with_batch: Vec<usize> = [&[1], shape].concat();
        if fits(wanted, &with_batch) {
            return Some(Cure::AddBatch);
        }
        if let [1, rest @ ..] = shape
            && fits(wanted, rest)
        {
            return Some(Cure::DropFirst);
        }
        match *shape {
            [n, h, w, c] if fits(wanted, &[n, c, h, w]) => Some(Cure::ChannelsFirst),
            [n, c, h, w] if fits(wanted, &[n, h, w, c]) => Some(Cure::ChannelsLast),
            [h, w, c] if fits(wanted, &[1, c, h, w]) => Some(Cure::BatchOfChannelsFirst),
            _ => None,
        }
    }
}

impl fmt::Display for Cure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cure::AddBatch => "put a batch of 1 in front with [None]",
            Cure::DropFirst => "take the first dimension away with [0]",
            Cure::ChannelsFirst => "put channels first with .transpose(0, 3, 1, 2)",
            Cure::ChannelsLast => "put channels last with .transpose(0, 2, 3, 1)",
            Cure::BatchOfChannelsFirst => {
                "make it a batch with channels first with .transpose(2, 0, 1)[None]"
            }
        })
    }
}

/// Exporters write 0 for a size they do not know, so 0 fits everything.
fn fits(wanted: &[Dim], shape: &[usize]) -> bool {
    let fits =
        |(dim, size): (&Dim, &usize)| dim.fixed().is_none_or(|fixed| fixed == 0 || fixed == *size);
    wanted.len() == shape.len() && wanted.iter().zip(shape).all(fits)
}

fn numpy_has(dtype: DataType) -> bool {
    dtype == DataType::BOOL || NUMPY.iter().any(|(known, _)| *known == dtype)
}

const NUMPY: [(DataType, &str); 11] = [
    (DataType::FLOAT, "float32"),
    (DataType::DOUBLE, "float64"),
    (DataType::FLOAT16, "float16"),
    (DataType::INT64, "int64"),
    (DataType::INT32, "int32"),
    (DataType::INT16, "int16"),
    (DataType::INT8, "int8"),
    (DataType::UINT64, "uint64"),
    (DataType::UINT32, "uint32"),
    (DataType::UINT16, "uint16"),
    (DataType::UINT8, "uint8"),
];

fn numpy_name(dtype: DataType) -> String {
    let known = NUMPY.iter().find(|(known, _)| *known == dtype);
    known.map_or_else(|| dtype.to_string(), |(_, name)| (*name).to_owned())
}
