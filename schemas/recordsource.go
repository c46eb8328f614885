package schemas

import (
	"strconv"
	"strings"
)

// RecordSource is Prediction.Source of an answer to a record.
func RecordSource(topic string, partition int32, offset int64) string {
	return topic + "/" + strconv.Itoa(int(partition)) + "/" + strconv.FormatInt(offset, 10)
}

// Record is the place of the record that the prediction answers, as RecordSource wrote it; false for one over HTTP.
func (p *Prediction) Record() (partition int, offset int64, ok bool) {
	parts := strings.Split(p.Source, "/")
	if len(parts) != 3 {
		return 0, 0, false
	}
	partition, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0, 0, false
	}
	offset, err = strconv.ParseInt(parts[2], 10, 64)
	return partition, offset, err == nil
}
