// Says who makes a request, or that nobody does whom syncgate let through. Uses nothing but .NET.
using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.Serialization.Json;
using System.Security.Cryptography;
using System.Text;
using System.Xml;
using System.Xml.Linq;

public class IdentityVerifier
{
    static readonly TimeSpan Skew = TimeSpan.FromSeconds(5), Between = TimeSpan.FromSeconds(10);
    readonly string audience;
    readonly Func<byte[]> fetchKeys;
    volatile Dictionary<string, XElement> keys = new Dictionary<string, XElement>();
    DateTimeOffset fetched = DateTimeOffset.MinValue;

    // fetchKeys gets the key set (RFC 7517): from the gateway's admin listener, or from a file.
    public IdentityVerifier(string audience, Func<byte[]> fetchKeys)
    {
        this.audience = audience;
        this.fetchKeys = fetchKeys;
    }

    // The claims (sub, route, form, jti, ...) of the header's value; null when it proves nothing.
    public IDictionary<string, string> Verify(string jws, string path, DateTimeOffset now)
    {
        try
        {
            var parts = jws.Split('.');
            var header = Json(Decode(parts[0]));
            var key = Key(header["kid"], now);
            var signed = Encoding.ASCII.GetBytes(parts[0] + "." + parts[1]);
            if (parts.Length != 3 || header["alg"] != "ES256" || key == null
                || !IsSignature(Decode(key["x"]), Decode(key["y"]), signed, Decode(parts[2])))
                return null;
            var claims = Json(Decode(parts[1]));
            var fits = claims["iss"] == "syncgate" && claims["aud"] == audience
                && claims["route"] == path
                && DateTimeOffset.FromUnixTimeSeconds(long.Parse(claims["iat"])) <= now + Skew
                && DateTimeOffset.FromUnixTimeSeconds(long.Parse(claims["exp"])) > now - Skew;
            return fits ? claims : null;
        }
        catch (Exception) { return null; }  // Whatever cannot be read proves nothing.
    }

    // An unknown key may be a new one: the set is fetched again, but not for every forged name.
    IDictionary<string, string> Key(string id, DateTimeOffset now)
    {
        if (keys.TryGetValue(id, out var known)) return Members(known);
        lock (fetchKeys)
        {
            if (now - fetched > Between)
            {
                fetched = now;
                keys = Xml(fetchKeys()).Element("keys").Elements("item")
                    .Where(key => (string)key.Element("crv") == "P-256")
                    .ToDictionary(key => (string)key.Element("kid"));
            }
        }
        return keys.TryGetValue(id, out known) ? Members(known) : null;
    }

    protected virtual bool IsSignature(byte[] x, byte[] y, byte[] signed, byte[] signature)
    {
        var point = new ECPoint { X = x, Y = y };
        using (var key = ECDsa.Create(new ECParameters { Curve = ECCurve.NamedCurves.nistP256, Q = point }))
            return key.VerifyData(signed, signature, HashAlgorithmName.SHA256);
    }

    static XElement Xml(byte[] json) =>
        XElement.Load(JsonReaderWriterFactory.CreateJsonReader(json, XmlDictionaryReaderQuotas.Max));

    static IDictionary<string, string> Json(byte[] json) => Members(Xml(json));

    static IDictionary<string, string> Members(XElement members) =>
        members.Elements().ToDictionary(member => member.Name.LocalName, member => member.Value);

    static byte[] Decode(string base64Url) => Convert.FromBase64String(
        base64Url.Replace('-', '+').Replace('_', '/').PadRight((base64Url.Length + 3) / 4 * 4, '='));
}
