package schemas

import (
	"reflect"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

func TestDeadLetterReadsBack(t *testing.T) {
	want := DeadLetter{Topic: "arrivals", Partition: 7, Offset: 1 << 40, Timestamp: 990360000000, Class: ClassRange, Reason: "delay: 9999 is above the maximum 3000",
		Stage: "ingest", Key: []byte("f1"), Value: []byte{1, 2}}
	headers := append([]Header{{"trace", []byte("x")}}, want.Headers()...)
	got, err := ParseDeadLetter(want.Key, want.Value, headers)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for i := 1; i < len(headers); i++ {
		without := append(append([]Header{}, headers[:i]...), headers[i+1:]...)
		if _, err := ParseDeadLetter(nil, nil, without); failure.Of(err) != failure.BadRecord {
			t.Errorf("without %s: %v", headers[i].Key, err)
		}
	}
	for _, text := range []string{"x", "", "4294967296"} {
		wrong := append([]Header{}, headers...)
		wrong[2] = Header{HeaderPartition, []byte(text)}
		if _, err := ParseDeadLetter(nil, nil, wrong); failure.Of(err) != failure.BadRecord {
			t.Errorf("partition %q: %v", text, err)
		}
	}
}
