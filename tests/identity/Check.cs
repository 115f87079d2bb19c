// Runs the example's verifier under Mono, which lacks ECDSA: the curve's arithmetic stands here.
// Arguments: audience, path, seconds since 1970, file of the key set. Each line of standard input is
// a header's value; the answer is its user, route and form, or `refused`.
using System;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Numerics;
using System.Security.Cryptography;

class Check : IdentityVerifier
{
    Check(string audience, string keySet) : base(audience, () => File.ReadAllBytes(keySet)) { }

    static void Main(string[] arguments)
    {
        var verifier = new Check(arguments[0], arguments[3]);
        var now = DateTimeOffset.FromUnixTimeSeconds(long.Parse(arguments[2]));
        for (string line; (line = Console.ReadLine()) != null;)
        {
            var claims = verifier.Verify(line, arguments[1], now);
            string form = null;
            if (claims != null) claims.TryGetValue("form", out form);
            Console.WriteLine(claims == null ? "refused" : $"{claims["sub"]} {claims["route"]} {form}");
        }
    }

    protected override bool IsSignature(byte[] x, byte[] y, byte[] signed, byte[] signature)
    {
        if (signature.Length != 64) return false;
        BigInteger r = Number(signature.Take(32)), s = Number(signature.Skip(32));
        if (r < 1 || r >= N || s < 1 || s >= N) return false;
        BigInteger hash;
        using (var sha = SHA256.Create()) hash = Number(sha.ComputeHash(signed));
        var inverse = BigInteger.ModPow(s, N - 2, N);
        var point = Add(Multiply(G, hash * inverse % N),
            Multiply(Tuple.Create(Number(x), Number(y)), r * inverse % N));
        return point != null && point.Item1 % N == r;
    }

    static readonly BigInteger P = Hex("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
    static readonly BigInteger N = Hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    static readonly Tuple<BigInteger, BigInteger> G = Tuple.Create(
        Hex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
        Hex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"));

    static Tuple<BigInteger, BigInteger> Multiply(Tuple<BigInteger, BigInteger> point, BigInteger by)
    {
        Tuple<BigInteger, BigInteger> sum = null;
        for (; by > 0; by >>= 1, point = Add(point, point))
            if (!by.IsEven) sum = Add(sum, point);
        return sum;
    }

    static Tuple<BigInteger, BigInteger> Add(Tuple<BigInteger, BigInteger> a, Tuple<BigInteger, BigInteger> b)
    {
        if (a == null || b == null) return a ?? b;
        BigInteger over, under;
        if (a.Item1 != b.Item1) { over = b.Item2 - a.Item2; under = b.Item1 - a.Item1; }
        else if (a.Item2 == b.Item2) { over = 3 * a.Item1 * a.Item1 - 3; under = 2 * a.Item2; }
        else return null;
        var slope = over * BigInteger.ModPow((under % P + P) % P, P - 2, P) % P;
        var x = ((slope * slope - a.Item1 - b.Item1) % P + P) % P;
        return Tuple.Create(x, ((slope * (a.Item1 - x) - a.Item2) % P + P) % P);
    }

    static BigInteger Hex(string digits) => BigInteger.Parse("0" + digits, NumberStyles.HexNumber);

    static BigInteger Number(System.Collections.Generic.IEnumerable<byte> bytes) =>
        new BigInteger(bytes.Reverse().Concat(new byte[] { 0 }).ToArray());
}
