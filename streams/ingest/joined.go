package ingest

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// headerJoined is what was looked up for a keyed record, when it was: the number of columns (uvarint), and of each the length of its name
// (uvarint), the name, and the value as in a due row. It is found by name, so that the source may come to look up other columns; and the
// tables may change, without changing what was computed of the record.
const headerJoined = "mr-joined"

func appendJoined(b []byte, s *schemas.Schema, row schemas.Row) []byte {
	from, until := s.Joined()
	b = binary.AppendUvarint(b, uint64(until-from))
	for i := from; i < until; i++ {
		b = binary.AppendUvarint(b, uint64(len(s.Columns[i].Name)))
		b = append(b, s.Columns[i].Name...)
		b = appendValue(b, row[i])
	}
	return b
}

// readJoined fills the columns of a row that were looked up when its record was re-keyed, and what is derived from them. Those that
// were not looked up then, or had another type, stay null.
func readJoined(r *kgo.Record, s *schemas.Schema, row schemas.Row) error {
	from, until := s.Joined()
	if from == until {
		return nil
	}
	for i := range r.Headers {
		if r.Headers[i].Key != headerJoined {
			continue
		}
		b := rowBytes{rest: r.Headers[i].Value}
		for n := b.uvarint(); n > 0 && !b.failed; n-- {
			name := string(b.take(int(min(b.uvarint(), uint64(len(b.rest)+1)))))
			v := b.value()
			if at := s.Index(name); !b.failed && at >= from && at < until && (v.IsNull() || v.Kind() == s.Columns[at].Kind) {
				row[at] = v
			}
		}
		if b.failed || len(b.rest) > 0 {
			return failure.New(failure.BadRecord, r.Topic, "the header %s cannot be read", headerJoined)
		}
	}
	s.Compute(row)
	return nil
}
