package schemas

import (
	"math"
	"strconv"
)

// floatPlaces is how many decimal places AppendFloat writes by itself, and floatScale ten to their power.
const (
	floatPlaces = 4
	floatScale  = 10_000
)

// AppendFloat appends what strconv.AppendFloat(b, f, 'g', -1, 64) does, to the byte: the shortest text that reads back as f. What most columns
// hold, counts and amounts below a million with at most four decimal places, it writes from an integer.
//
// Such an f is n/10⁴ of a whole n, rounded once, and n has at most ten digits. Two decimals of at most 15 digits never round to the same float64
// (D. W. Matula, "In-and-out conversions", 1968), so that the digits of n, without the zeros at their end, are the shortest there are.
func AppendFloat(b []byte, f float64) []byte {
	size := math.Abs(f)
	if !(size >= 1.0/floatScale && size < 1e6) { // beyond which there is an exponent; NaN is not
		if math.Float64bits(f) == 0 {
			return append(b, '0')
		}
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	}
	n := int64(size*floatScale + 0.5)
	if float64(n)/floatScale != size {
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	}
	if f < 0 {
		b = append(b, '-')
	}
	b = strconv.AppendInt(b, n/floatScale, 10)
	fraction := n % floatScale
	if fraction == 0 {
		return b
	}
	var digits [1 + floatPlaces]byte
	digits[0] = '.'
	for i := floatPlaces; i > 0; i-- {
		digits[i] = '0' + byte(fraction%10)
		fraction /= 10
	}
	end := len(digits)
	for digits[end-1] == '0' {
		end--
	}
	return append(b, digits[:end]...)
}
