package serving

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/schemas"
)

// saltLog keeps the sample of the log apart from the arms'.
const saltLog = "log"

// sampled reports whether a prediction is of the sample that the model logs: those of some entities, always the same. One that names no
// entity is taken or not by its id. row is nil where there is none.
func (d *deployment) sampled(p *plan, row schemas.Row, prediction *schemas.Prediction) bool {
	share := d.model.Serve.LogSample
	if share == 0 || share >= 1 {
		return true
	}
	unit := ""
	if row != nil {
		unit = strings.Trim(p.unit(row), "\x00")
	}
	if unit == "" {
		unit = prediction.ID
	}
	return point(saltLog, d.model.Name, unit) < share
}

// notable reports whether a prediction is logged whatever the sample: who acts on refusals, fallbacks and trials needs them all.
func notable(p *schemas.Prediction) bool {
	return p.Refused || p.Rung != schemas.RungPrimary || p.Arm != schemas.ArmChampion
}

// logAnswer hands an answer over HTTP to the log, if it is to be there.
func (s *Stage) logAnswer(d *deployment, p *plan, row schemas.Row, prediction *schemas.Prediction, record *kgo.Record) {
	switch {
	case len(s.deps.Kafka.Brokers) == 0:
		return
	case d.sampled(p, row, prediction):
	case notable(prediction):
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: schemas.HeaderUnsampled})
	default:
		d.http.sampledOut.Inc()
		return
	}
	s.log.put(record)
}
