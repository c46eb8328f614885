package dataset

import (
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
)

const (
	rowGroupRows    = 1 << 17 // rows of a row group of a Parquet output: what its writer holds, encoded, in memory
	dictionaryBytes = 1 << 17 // of a column in a row group, beyond which its texts are written as they are
)

// parquetProperties says how columns are encoded; those from computed on are features.
//
// Integers and times are written as differences, packed into as few bits as they need (DELTA_BINARY_PACKED): about as small as zstd makes
// them, at a quarter of its time, so that those of features are not compressed a second time. Floats are written as they are, since nearly
// all of a mean's or a deviation's bits are random; zstd finds those that repeat. Texts have a dictionary until it proves useless.
func parquetProperties(schema *arrow.Schema, computed int) *parquet.WriterProperties {
	props := []parquet.WriterProperty{
		parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(1), parquet.WithDictionaryPageSizeLimit(dictionaryBytes),
		parquet.WithMaxRowGroupLength(rowGroupRows), parquet.WithCreatedBy("millrace"),
	}
	for i, f := range schema.Fields() {
		switch f.Type.ID() {
		case arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64, arrow.DATE32, arrow.TIMESTAMP:
			props = append(props, parquet.WithDictionaryFor(f.Name, false), parquet.WithEncodingFor(f.Name, parquet.Encodings.DeltaBinaryPacked))
			if i >= computed {
				props = append(props, parquet.WithCompressionFor(f.Name, compress.Codecs.Uncompressed))
			}
		case arrow.FLOAT16, arrow.FLOAT32, arrow.FLOAT64:
			props = append(props, parquet.WithDictionaryFor(f.Name, i < computed))
		}
	}
	return parquet.NewWriterProperties(props...)
}
