package offline

import (
	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// NewBatch reads columns of a record, by their positions. The batch keeps the record's memory.
func NewBatch(record arrow.Record, columns []int) (*Batch, error) {
	b := &Batch{rows: int(record.NumRows()), columns: make([]vector, len(columns))}
	for i, at := range columns {
		var err error
		if b.columns[i], err = newVector(record.Column(at)); err != nil {
			return nil, failure.Wrap(failure.BadRequest, record.ColumnName(at), "reading the column", err)
		}
	}
	return b, nil
}

// KindOf is the kind that a column of an Arrow type reads as, Null where it is not read here.
func KindOf(t arrow.DataType) schemas.Kind {
	switch t.ID() {
	case arrow.INT64, arrow.INT32, arrow.INT16, arrow.INT8, arrow.UINT64, arrow.UINT32, arrow.UINT16, arrow.UINT8:
		return schemas.Int
	case arrow.FLOAT64, arrow.FLOAT32, arrow.FLOAT16, arrow.DECIMAL128, arrow.DECIMAL256:
		return schemas.Float
	case arrow.BOOL:
		return schemas.Bool
	case arrow.STRING, arrow.LARGE_STRING, arrow.STRING_VIEW:
		return schemas.String
	case arrow.BINARY, arrow.LARGE_BINARY, arrow.BINARY_VIEW:
		return schemas.Bytes
	case arrow.TIMESTAMP, arrow.DATE32, arrow.DATE64:
		return schemas.Time
	case arrow.DICTIONARY:
		if k := KindOf(t.(*arrow.DictionaryType).ValueType); k == schemas.String || k == schemas.Bytes {
			return k
		}
	}
	return schemas.Null
}

// ArrowType is the type of a column of a kind in the files of this program.
func ArrowType(k schemas.Kind) arrow.DataType { return arrowType(k) }
