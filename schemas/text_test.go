package schemas

import (
	"math"
	"testing"
)

func TestTextReadsBack(t *testing.T) {
	for _, v := range []Value{
		BoolValue(true), BoolValue(false), IntValue(math.MinInt64), IntValue(1<<53 + 1), FloatValue(0.1), FloatValue(math.SmallestNonzeroFloat64), FloatValue(math.Inf(-1)),
		StringValue(""), StringValue("ÅÄÖ\x00/"), TimeValue(0), TimeValue(-1), TimeValue(978307200123), BytesValue("\x00\xff"), CompositeValue(`[1,2]`),
	} {
		if got, err := ParseText(v.Text(), v.Kind()); err != nil || got != v {
			t.Errorf("%q of %s reads back as %v, %v", v.Text(), v.Kind(), got.Any(), err)
		}
	}
	for text, kind := range map[string]Kind{"": Int, "x": Float, "2001": Time, "maybe": Bool, "%": Bytes, "null": Null} {
		if got, err := ParseText(text, kind); err == nil {
			t.Errorf("%q is read as %s %v", text, kind, got.Any())
		}
	}
}
