package dataset

import (
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
)

// rowGroupRows is how many rows a row group of a Parquet output has: what its writer holds, encoded, in memory.
const rowGroupRows = 1 << 17

// parquetProperties says how columns are encoded; those from computed on are features.
//
// Integers and times are written as differences, packed into as few bits as they need (DELTA_BINARY_PACKED): about as small as zstd makes
// them, at a quarter of its time, so that those of features are not compressed a second time. Floats are written as they are, since nearly
// all of a mean's or a deviation's bits are random; zstd finds those that repeat, as it does of texts. There are no dictionaries: a column
// that gives its dictionary up has pages of two encodings, which Arrow's writer lists in the order of a Go map, and the same input would
// give files of different digests.
func parquetProperties(schema *arrow.Schema, computed int) *parquet.WriterProperties {
	props := []parquet.WriterProperty{
		parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(1), parquet.WithDictionaryDefault(false),
		parquet.WithMaxRowGroupLength(rowGroupRows), parquet.WithCreatedBy("millrace"),
	}
	for i, f := range schema.Fields() {
		switch f.Type.ID() {
		case arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64, arrow.DATE32, arrow.TIMESTAMP:
			props = append(props, parquet.WithEncodingFor(f.Name, parquet.Encodings.DeltaBinaryPacked))
			if i >= computed {
				props = append(props, parquet.WithCompressionFor(f.Name, compress.Codecs.Uncompressed))
			}
		}
	}
	return parquet.NewWriterProperties(props...)
}
