package schemas

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const goodTrip = `{"id":"t1","started":"2001-05-20T12:00:00Z","ended":null,"seats":3,"metres":1099511627776,"speed":0.5,"fare":12.25,"paid":true,
 "class":"SECOND","returnClass":"FIRST","raw":"AP8=","hash":"YWJjZA==","from":{"code":"ATL","position":{"lat":33.6,"lon":-84.4}},
 "to":{"code":"LAX","position":{"lat":33.9,"lon":null}}}`

func TestJSONDecode(t *testing.T) {
	s := trip(t)
	decoder, encoder := codecs(t, s, JSON)
	row, err := decoder.Decode(t.Context(), []byte(goodTrip), nil)
	if err != nil || !reflect.DeepEqual(row, tripRow()) {
		t.Fatalf("got  %v, %v\nwant %v", anys(row), err, anys(tripRow()))
	}
	text, err := encoder.Encode(t.Context(), row)
	if err != nil {
		t.Fatal(err)
	}
	back, err := decoder.Decode(t.Context(), text, nil)
	if err != nil || !reflect.DeepEqual(back, row) {
		t.Fatalf("%s: %v", text, err)
	}
	avroDecoder, avroEncoder := codecs(t, s, Avro)
	record, err := avroEncoder.Encode(t.Context(), row)
	if err != nil {
		t.Fatal(err)
	}
	if back, err = avroDecoder.Decode(t.Context(), record, back); err != nil || !reflect.DeepEqual(back, row) {
		t.Fatalf("through Avro: %v, %v", anys(back), err)
	}
}

// change replaces one part of the good record; a part that is not there fails the test.
func change(t *testing.T, old, new string) []byte {
	t.Helper()
	if strings.Count(goodTrip, old) != 1 {
		t.Fatalf("%q is not once in the record", old)
	}
	return []byte(strings.Replace(goodTrip, old, new, 1))
}

func TestJSONAccepts(t *testing.T) {
	s := trip(t)
	decoder, _ := codecs(t, s, JSON)
	for _, c := range []struct {
		old, new, column string
		want             any
	}{
		{`"ended":null,`, ``, "ended", nil},
		{`"ended":null`, `"ended":990360000001`, "ended", time.UnixMilli(990360000001).UTC()},
		{`"2001-05-20T12:00:00Z"`, `"2001-05-20T14:00:00.5+02:00"`, "started", time.UnixMilli(990360000500).UTC()},
		{`"seats":3`, `"seats":3.0`, "seats", int64(3)},
		{`"seats":3`, `"seats":3e2`, "seats", int64(300)},
		{`"metres":1099511627776`, `"metres":-9223372036854775808`, "metres", int64(-1 << 63)},
		{`"fare":12.25`, `"fare":7`, "fare", 7.0},
		{`"speed":0.5`, `"speed":0.1`, "speed", float64(float32(0.1))},
		{`"id":"t1"`, `"id":"\u0041\"é\ud83d\ude00"`, "id", `A"é😀`},
		{`,
 "to":{"code":"LAX","position":{"lat":33.9,"lon":null}}`, ``, "to.code", "?"},
		{`,"lon":null`, ``, "to.position.lon", nil},
	} {
		row, err := decoder.Decode(t.Context(), change(t, c.old, c.new), nil)
		if err != nil {
			t.Errorf("%s: %v", c.new, err)
			continue
		}
		if got := row[s.Index(c.column)].Any(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %s is %v, want %v", c.new, c.column, got, c.want)
		}
	}
}

func TestJSONRefuses(t *testing.T) {
	decoder, _ := codecs(t, trip(t), JSON)
	for _, c := range []struct{ old, new, class, path, reason string }{
		{goodTrip, `{`, ClassMalformed, "", "not JSON"},
		{goodTrip, ``, ClassMalformed, "", "not JSON"},
		{goodTrip, `{} {}`, ClassMalformed, "", "not JSON"},
		{goodTrip, `[]`, ClassType, "", "array where an object must be"},
		{goodTrip, strings.Repeat("[", 100000), ClassMalformed, "", "not JSON"},
		{`"seats":3`, `"seats":03`, ClassMalformed, "", "not JSON"},
		{`"seats":3`, `"seats":NaN`, ClassMalformed, "", "not JSON"},
		{`"id":"t1"`, "\"id\":\"t\n1\"", ClassMalformed, "", "not JSON"},
		{`"id":"t1"`, "\"id\":\"\xff\"", ClassMalformed, "id", "not UTF-8"},
		{`"id":"t1"`, `"id":"t1","id":"t2"`, ClassMalformed, "id", "twice"},
		{`"id":"t1",`, ``, ClassMissing, "id", "absent"},
		{`"id":"t1"`, `"id":null`, ClassMissing, "id", "not nullable"},
		{`"lat":33.6,`, ``, ClassMissing, "from.position.lat", "absent"},
		{`"from":{"code":"ATL","position":{"lat":33.6,"lon":-84.4}},`, ``, ClassMissing, "from", "absent"},
		{`"id":"t1"`, `"id":7`, ClassType, "id", "number where text must be"},
		{`"paid":true`, `"paid":1`, ClassType, "paid", "number where true or false must be"},
		{`"paid":true`, `"paid":"true"`, ClassType, "paid", "string where"},
		{`"seats":3`, `"seats":"3"`, ClassType, "seats", "string where an integer must be"},
		{`"seats":3`, `"seats":3.5`, ClassType, "seats", "3.5 is not an integer"},
		{`"metres":1099511627776`, `"metres":9007199254740993.0`, ClassType, "metres", "without loss"},
		{`"metres":1099511627776`, `"metres":9223372036854775808`, ClassRange, "metres", "does not fit 64 bits"},
		{`"seats":3`, `"seats":501`, ClassRange, "seats", "501 is above the maximum 500"},
		{`"fare":12.25`, `"fare":1e999`, ClassRange, "fare", "does not fit 64 bits"},
		{`"speed":0.5`, `"speed":1e99`, ClassRange, "speed", "does not fit 32 bits"},
		{`"lat":33.6`, `"lat":90.5`, ClassRange, "from.position.lat", "90.5 is above the maximum 90"},
		{`"2001-05-20T12:00:00Z"`, `"yesterday"`, ClassType, "started", `"yesterday" is not a time`},
		{`"2001-05-20T12:00:00Z"`, `true`, ClassType, "started", "true where a time"},
		{`"2001-05-20T12:00:00Z"`, `999999999999999999`, ClassRange, "started", "outside the years"},
		{`"class":"SECOND"`, `"class":"second"`, ClassUnknown, "class", "not one of the symbols"},
		{`"raw":"AP8="`, `"raw":"AP8"`, ClassType, "raw", "base64"},
		{`"hash":"YWJjZA=="`, `"hash":"YWI="`, ClassRange, "hash", "2 bytes where 4 must be"},
		{`"from":{"code":"ATL","position":{"lat":33.6,"lon":-84.4}}`, `"from":"ATL"`, ClassType, "from", "string where an object must be"},
		{`"seats":3`, `"seats":3,"seat":4`, ClassUnknown, "seat", "did you mean seats?"},
		{`"lat":33.6`, `"lat":33.6,"weather":4`, ClassUnknown, "from.position.weather", "no such field"},
	} {
		_, err := decoder.Decode(t.Context(), change(t, c.old, c.new), nil)
		checkRecordError(t, err, c.class, c.path, c.reason)
	}
}
