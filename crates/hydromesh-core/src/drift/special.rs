//! The few special functions the tests need, to about 14 digits.

use std::f64::consts::PI;

/// Returns ln Γ(x) for x > 0, by the Lanczos approximation (g = 7, nine terms).
pub(super) fn ln_gamma(x: f64) -> f64 {
    const G: f64 = 7.0;
    const TERMS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        // Reflection: the approximation holds on the right half only.
        return (PI / (PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let base = x + G + 0.5;
    let series =
        TERMS[1..].iter().zip(1_u8..).fold(TERMS[0], |sum, (term, i)| sum + term / (x + f64::from(i)));
    0.5 * (2.0 * PI).ln() + (x + 0.5) * base.ln() - base + series.ln()
}

/// Returns the regularised upper incomplete gamma function Q(a, x) for a > 0, x >= 0.
///
/// Series below a + 1, Lentz's continued fraction above, as in Press et al., "Numerical Recipes", 6.2.
#[expect(clippy::many_single_char_names, reason = "the letters of the literature")]
pub(super) fn gamma_q(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    if x.is_infinite() {
        return 0.0;
    }
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        while term.abs() > sum.abs() * 1e-17 {
            n += 1.0;
            term *= x / n;
            sum += term;
        }
        return (1.0 - sum * scale).clamp(0.0, 1.0);
    }
    let tiny = f64::MIN_POSITIVE / f64::EPSILON;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / tiny;
    let mut d = 1.0 / b;
    let mut fraction = d;
    for i in 1..10_000 {
        let i = f64::from(i);
        let an = -i * (i - a);
        b += 2.0;
        d = an * d + b;
        d = 1.0 / if d.abs() < tiny { tiny } else { d };
        c = b + an / c;
        c = if c.abs() < tiny { tiny } else { c };
        let factor = d * c;
        fraction *= factor;
        if (factor - 1.0).abs() < 1e-16 {
            break;
        }
    }
    (scale * fraction).clamp(0.0, 1.0)
}

/// Returns the probability that a chi-square variable with `freedom` degrees exceeds `x`.
pub(super) fn chi_square_tail(x: f64, freedom: usize) -> f64 {
    gamma_q(freedom as f64 / 2.0, x / 2.0)
}

/// Returns the tail of the limit law of the Kolmogorov-Smirnov statistic at x.
pub(super) fn kolmogorov_tail(x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    if x < 1.0 {
        // The theta-function form converges fast where the alternating one does not.
        let sum: f64 = (1..=9)
            .map(|k| {
                let odd = f64::from(2 * k - 1);
                (-odd * odd * PI * PI / (8.0 * x * x)).exp()
            })
            .sum();
        return 1.0 - (2.0 * PI).sqrt() / x * sum;
    }
    let sum: f64 = (1..=9)
        .map(|k| {
            let sign = if k % 2 == 1 { 1.0 } else { -1.0 };
            sign * (-2.0 * f64::from(k * k) * x * x).exp()
        })
        .sum();
    2.0 * sum
}

#[cfg(test)]
mod tests {
    use super::super::goldens::{assert_near, goldens};
    use super::*;

    #[test]
    fn agree_with_scipy() {
        let special = goldens().special;
        assert!(special.gamma_q.len() > 50);
        for (a, x, expected) in special.gamma_q {
            assert_near(gamma_q(a, x), expected, &format!("Q({a}, {x})"));
        }
        for (x, expected) in special.ln_gamma {
            assert_near(ln_gamma(x), expected, &format!("ln gamma({x})"));
        }
        for (x, expected) in special.kolmogorov {
            assert_near(kolmogorov_tail(x), expected, &format!("kolmogorov({x})"));
        }
    }
}
