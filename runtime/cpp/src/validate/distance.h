// The distance of two results, as a multiple of the noise floor. With x the float64 reference, r the reference in the
// export's own type and y the bundle's result, over all compared rows and positions of one task:
//
//   ratio = max( rms(y - x) / max(rms(r - x), eps rms(x)),  max|y - x| / 2 max(max|r - x|, eps max|x|) )
//
// The root mean square finds small errors everywhere, the largest error one in a single place; it varies twice as much
// between honest runs, hence the 2. If x has only a few numbers, their noise may be small by chance, and eps is the
// typical noise of the task's modules.
#pragma once

#include "readers/bundle/manifest.h"
#include "readers/proof/proof.h"

namespace eptx::core {

constexpr double kLimit = 10.0;  // a bundle fails if a ratio is larger
constexpr double kWorst = 1e30;  // the largest ratio; it stands for NaN too

// The relative rounding of one number of a bundle; quantized products are summed in float32.
double Rounding(const Manifest& manifest);

double Ratio(const Spread& error, const Spread& noise, const Spread& scale, double rounding, double typical);

// The spread of a subject; one of no numbers where there is none.
Spread SpreadOf(const Spreads& spreads, const Subject& subject);

}  // namespace eptx::core
