// Sends a batch through syncgate with HttpClient, on .NET Framework 4.7.1 or later and on Mono.
// Mono: mcs -r:System.Net.Http -r:System.Runtime.Serialization Sync.cs && mono Sync.exe
using System;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Net.Security;
using System.Runtime.Serialization;
using System.Runtime.Serialization.Json;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Threading.Tasks;

[DataContract]
class Credentials
{
    [DataMember] public string username;
    [DataMember] public string password;
}

[DataContract]
class LoginAnswer
{
    [DataMember] public Token token = null;
}

[DataContract]
class Token
{
    [DataMember] public string accesstoken = null;
}

class Gateway
{
    readonly HttpClient client; // One for the life of the program: it keeps the connections.
    string token;

    public Gateway()
    {
        var transport = new HttpClientHandler { SslProtocols = SslProtocols.Tls12 };
        var trusted = Program.Setting("SYNCGATE_CA", "");
        if (trusted != "")
        {
            var pinned = new X509Certificate2(trusted);
            transport.ServerCertificateCustomValidationCallback =
                (request, certificate, chain, errors) => Trusts(pinned, certificate, errors);
        }
        client = new HttpClient(transport)
        {
            BaseAddress = new Uri(Program.Setting("SYNCGATE_URL", "https://127.0.0.1:8443")),
            Timeout = TimeSpan.FromSeconds(120),
        };
    }

    public async Task<string> Sync(string batch)
    {
        if (token == null) await LogIn();
        var answer = await Send(batch);
        if (answer.StatusCode == HttpStatusCode.Unauthorized)
        {
            await LogIn(); // The token has expired or was revoked: get a new one, try once more.
            answer = await Send(batch);
        }
        var text = await answer.Content.ReadAsStringAsync();
        if (!answer.IsSuccessStatusCode)
            throw new Exception("call failed with status " + (int)answer.StatusCode + ": " + text);
        return text;
    }

    async Task LogIn()
    {
        var credentials = new Credentials
        {
            username = Program.Setting("SYNCGATE_USER", ""),
            password = Program.Setting("SYNCGATE_PASSWORD", ""),
        };
        var body = new MemoryStream();
        new DataContractJsonSerializer(typeof(Credentials)).WriteObject(body, credentials);
        var answer = await Post("/api/getToken", Encoding.UTF8.GetString(body.ToArray()), null);
        if (answer.StatusCode != HttpStatusCode.OK)
            throw new Exception("log-in failed: " + await answer.Content.ReadAsStringAsync());
        var login = (LoginAnswer)new DataContractJsonSerializer(typeof(LoginAnswer))
            .ReadObject(await answer.Content.ReadAsStreamAsync());
        token = login.token.accesstoken;
    }

    Task<HttpResponseMessage> Send(string batch)
    {
        return Post("/api/SyncData", batch, new AuthenticationHeaderValue("Bearer", token));
    }

    Task<HttpResponseMessage> Post(string path, string body, AuthenticationHeaderValue token)
    {
        var request = new HttpRequestMessage(HttpMethod.Post, path)
        {
            Content = new StringContent(body, Encoding.UTF8, "application/json"),
        };
        request.Headers.Authorization = token;
        return client.SendAsync(request);
    }

    // Needed only for a self-signed certificate: trusts that very one. For a company's own CA leave
    // SYNCGATE_CA out and add the CA to the system's store (Mono: cert-sync --user ca.pem): in this
    // callback Mono does not say whether the name in the certificate is the server's.
    static bool Trusts(X509Certificate2 pinned, X509Certificate2 shown, SslPolicyErrors errors)
    {
        if (errors == SslPolicyErrors.None) return true;
        return errors == SslPolicyErrors.RemoteCertificateChainErrors
            && shown.RawData.SequenceEqual(pinned.RawData)
            && DateTime.Now < shown.NotAfter;
    }
}

static class Program
{
    const string Batch =
        "{\"form\":\"setCustomer\",\"data\":[{\"fkey\":\"C-1001\",\"name\":\"Example Ltd\"}]}";

    static int Main()
    {
        try
        {
            var gateway = new Gateway();
            for (var call = int.Parse(Setting("SYNCGATE_CALLS", "1")); call > 0; call--)
                Console.WriteLine(gateway.Sync(Batch).GetAwaiter().GetResult());
            return 0;
        }
        catch (Exception error)
        {
            Console.Error.WriteLine(error.GetBaseException().Message);
            return 1;
        }
    }

    public static string Setting(string name, string standard)
    {
        return Environment.GetEnvironmentVariable(name) ?? standard;
    }
}
